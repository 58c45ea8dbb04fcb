package status

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// next reads one batch and checks its form.
func next(t *testing.T, s pipeline.Stream) (*pipeline.Batch, []Change) {
	t.Helper()
	b, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []Change
	for i := range b.Events {
		var c Change
		if err := json.Unmarshal(b.Bytes(b.Events[i].After), &c); err != nil {
			t.Fatal(err)
		}
		if e := b.Events[i]; e.Op != pipeline.OpMessage || string(b.Bytes(e.Before)) != Prefix || e.Table != pipeline.NoTable {
			t.Fatalf("%+v", e)
		}
		if seq, last := b.Seq(i); seq != 1 || !last {
			t.Fatal(seq, last)
		}
		all = append(all, c)
	}
	return b, all
}

func open(t *testing.T, s *Source, after pipeline.Position) pipeline.Stream {
	t.Helper()
	st, err := s.Open(t.Context(), after)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestFlappingIsDamped: a subject is told at once, then at most once a second, with the newest; what is as it was told
// is not told again.
func TestFlappingIsDamped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		st := open(t, s, pipeline.Position{})
		defer st.Close()
		change := func(state string) { s.Changed(Change{Kind: "subscription", Name: "a", State: state, Time: time.Now()}) }
		change("running")
		if _, all := next(t, st); len(all) != 1 || all[0].State != "running" || all[0].Was != "" {
			t.Fatal(all)
		}
		began := time.Now()
		go func() {
			for range 10 {
				change("retrying")
				time.Sleep(10 * time.Millisecond)
				change("waiting")
			}
		}()
		_, all := next(t, st)
		if len(all) != 1 || all[0].State != "waiting" || all[0].Was != "running" || time.Since(began) != damp {
			t.Fatal(all, time.Since(began))
		}
		change("running")
		change("waiting")
		s.Changed(Change{Kind: "source", Name: "a", State: "streaming"})
		if _, all := next(t, st); len(all) != 1 || all[0].Kind != "source" {
			t.Fatal(all)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if b, err := st.Next(ctx); err == nil {
			t.Fatalf("told again: %v", b)
		}
	})
}

// TestWhatIsNotInTheLogComesAgain: by where the log stands, not by what was confirmed.
func TestWhatIsNotInTheLogComesAgain(t *testing.T) {
	s := New()
	st := open(t, s, pipeline.Position{Counter: 7, Token: "7"})
	s.Changed(Change{Kind: "source", Name: "a", State: "streaming"})
	one, _ := next(t, st)
	s.Changed(Change{Kind: "source", Name: "b", State: "streaming"})
	two, _ := next(t, st)
	if one.End.Counter != 8 || two.End != (pipeline.Position{Counter: 9, Token: "9"}) {
		t.Fatal(one.End, two.End)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Next(t.Context()); err == nil {
		t.Fatal("read from a closed stream")
	}
	st = open(t, s, one.End)
	b, all := next(t, st)
	if len(all) != 1 || all[0].Name != "b" || b.End != two.End {
		t.Fatal(all, b.End)
	}
	st.Confirm(b.End)
	st = open(t, s, b.End)
	s.Changed(Change{Kind: "source", Name: "c", State: "streaming"})
	if b, all := next(t, st); all[0].Name != "c" || b.End.Counter != 10 {
		t.Fatal(all, b.End)
	}
	if _, err := s.Open(t.Context(), pipeline.Position{Counter: 3, Token: "0/16B3748"}); err == nil {
		t.Fatal("took the log of a database")
	}
}
