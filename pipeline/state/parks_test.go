package state

import (
	"math"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// TestParksOutliveTheProcess: what was put is there again after Close, field by field, and one key has one park.
func TestParksOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, path)
	key := pipeline.Park{Subscription: "search", Log: "l1", Space: "public.files", Key: []byte{0, 255}, KeyJSON: `{"id":1}`, Hash: math.MaxUint64 - 6,
		From: 70, Reason: "422", Attempts: 12, Since: time.Date(2026, 11, 21, 10, 0, 0, 1000, time.UTC), Redrive: true}
	pair := key
	pair.Hash, pair.From, pair.Key, pair.Paired, pair.PairHash, pair.Attempts, pair.Redrive = 3, 80, nil, true, math.MaxUint64, 0, false
	one, two := key, key
	one.Single, one.From = true, 90
	two.Single, two.From = true, 91
	check(t, s.PutParks(t.Context(), []pipeline.Park{two, one, pair, key}))
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
	list(moved, pair, one, two)
	check(t, s.DeleteParks(t.Context(), []pipeline.Park{key, one, one}))
	list(pair, two)
	check(t, s.DropSubscription(t.Context(), "search"))
	list()
	if got, err := s.Parks(t.Context(), "archive"); err != nil || len(got) != 1 {
		t.Fatalf("parks of another subscription: %+v %v", got, err)
	}
}
