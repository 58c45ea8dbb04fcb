package state

import (
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// TestParksOutliveTheProcess: what was put is there again after Close, field by field, and one key has one park.
func TestParksOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	key := pipeline.Park{Subscription: "search", Log: "l1", Space: "public.files", Key: []byte{0, 255}, KeyJSON: `{"id":1}`, Hash: math.MaxUint64 - 6,
		From: 70, Reason: "422", Attempts: 12, Since: time.Date(2026, 11, 21, 10, 0, 0, 1000, time.UTC), Redrive: true, Spent: true}
	pair := key
	pair.Hash, pair.From, pair.Key, pair.Paired, pair.PairHash, pair.Attempts, pair.Redrive, pair.Spent = 3, 80, nil, true, math.MaxUint64, 0, false, false
	one, two := key, key
	one.Single, one.From = true, 90
	two.Single, two.From = true, 91
	full := pipeline.Park{Subscription: "search", Log: "l1", Space: "public.files", Key: []byte("b"), Until: []byte("c"), Interval: true, Hash: 11, From: 95, Since: key.Since}
	end := full
	end.Key, end.Until, end.Hash, end.From = nil, nil, 12, 96
	check(t, s.PutParks(t.Context(), []pipeline.Park{two, one, pair, key, full, end}))
	other := key
	other.Subscription = "archive"
	check(t, s.PutParks(t.Context(), []pipeline.Park{other}))
	moved := key
	moved.From, moved.Redrive = 75, false
	check(t, s.PutParks(t.Context(), []pipeline.Park{moved}))
	check(t, s.Close())
	s = open(t, path)
	list := func(want ...pipeline.Park) {
		t.Helper()
		if got, err := s.Parks(t.Context(), "search"); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%+v, want\n%+v", err, got, want)
		}
	}
	list(moved, pair, one, two, full, end)
	lean := map[pipeline.ParkID]pipeline.Park{}
	check(t, s.EachPark(t.Context(), "search", "l1", func(p *pipeline.Park) {
		kept := *p
		kept.Key, kept.Until = slices.Clone(p.Key), slices.Clone(p.Until)
		lean[p.ID()] = kept
	}))
	for _, p := range []pipeline.Park{moved, pair, one, two, full, end} {
		p.KeyJSON, p.Reason, p.Attempts = "", "", 0
		if got := lean[p.ID()]; !reflect.DeepEqual(got, p) || len(lean) != 6 {
			t.Errorf("%d parks, %+v, want %+v", len(lean), got, p)
		}
	}
	check(t, s.EachPark(t.Context(), "search", "l2", func(p *pipeline.Park) { t.Errorf("of another log: %+v", p) }))
	check(t, s.DeleteParks(t.Context(), []pipeline.Park{key, one, one, full, end}))
	list(pair, two)
	check(t, s.DropSubscription(t.Context(), "search"))
	list()
	if got, err := s.Parks(t.Context(), "archive"); err != nil || len(got) != 1 {
		t.Fatalf("parks of another subscription: %+v %v", got, err)
	}
}

// TestCopiesGoWithTheirPark: copies are kept for parks that are there, through changes of the park, and not longer.
func TestCopiesGoWithTheirPark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	ctx := t.Context()
	key := pipeline.Park{Subscription: "search", Log: "l1", Hash: math.MaxUint64 - 6, From: 70}
	gone := pipeline.Park{Subscription: "search", Log: "l1", Hash: 9, From: 75}
	check(t, s.PutParks(ctx, []pipeline.Park{key}))
	held := func(p pipeline.Park, o pipeline.Offset) pipeline.Held {
		return pipeline.Held{Subscription: "search", Park: p.ID(), Log: "l1", Offset: o, Block: []byte{byte(o)}}
	}
	table := pipeline.HeldTable{Log: "l1", ID: 3, Version: 2, Shape: []byte("{}")}
	all := []pipeline.Held{held(key, 70), held(key, 72), held(gone, 75), held(key, 79)}
	check(t, s.PutHeld(ctx, all, []pipeline.HeldTable{table}))
	check(t, s.PutHeld(ctx, all[:1], nil)) // the same again
	key.Copied, gone.Copied = 80, 80
	elsewhere := key
	elsewhere.From, elsewhere.Copied = 71, 90
	check(t, s.PutCopied(ctx, []pipeline.Park{key, gone, elsewhere}))
	again := key
	again.From, again.Copied = 72, 0 // it failed again, further on
	check(t, s.PutParks(ctx, []pipeline.Park{again}))
	check(t, s.Close())
	s = open(t, path)
	if ps, err := s.Parks(ctx, "search"); err != nil || len(ps) != 1 || ps[0].From != 72 || ps[0].Copied != 80 {
		t.Fatalf("%+v %v", ps, err)
	}
	got, err := s.Held(ctx, "search", "l1", 71, 79, 10)
	if err != nil || !reflect.DeepEqual(got, all[1:2]) {
		t.Fatalf("%+v %v", got, err)
	}
	if n, events, err := s.HeldBytes(ctx, "search"); n != 3 || events != 3 || err != nil {
		t.Fatal(n, events, err)
	}
	if n, err := s.HeldCounts(ctx, "search", 79); err != nil || len(n) != 1 || n[key.ID()] != 1 {
		t.Fatal(n, err)
	}
	if got, ok, err := s.HeldTable(ctx, "l1", 3, 2); !ok || err != nil || !reflect.DeepEqual(got, table) {
		t.Fatal(got, ok, err)
	}
	if _, ok, err := s.HeldTable(ctx, "l1", 3, 1); ok || err != nil {
		t.Fatal(ok, err)
	}
	check(t, s.DeleteParks(ctx, []pipeline.Park{again}))
	if n, _, err := s.HeldBytes(ctx, "search"); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}
