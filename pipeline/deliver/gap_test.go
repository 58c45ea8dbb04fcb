package deliver

import (
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver/frontier"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// TestAGapOfOffsetsCostsNoMemory: a restored log goes on far above where it ended, and retention may take more
// than anybody could list. Neither stretch is remembered event by event.
func TestAGapOfOffsetsCostsNoMemory(t *testing.T) {
	f := frontier.New(first)
	a := f.Add(first + 3)
	f.Skip(first + 1<<40)
	b := f.Add(first + 1<<40 + 2)
	if f.Mark(a, first, first+3); f.Low() != first+1<<40 {
		t.Fatalf("low %d", f.Low())
	}
	if !f.Done(first + 1<<39) {
		t.Fatal("an offset that no event has is not done")
	}
	f.Mark(b, first+1<<40+1, first+1<<40+2)
	if p := f.Pending(first+1<<40+2, 10); len(p) != 1 || p[0] != (pipeline.OffsetRange{From: first + 1<<40, To: first + 1<<40 + 1}) {
		t.Fatalf("pending %v", p)
	}
}

func TestDeliveryGoesOnBehindAGap(t *testing.T) {
	m, sink := newMemory(), pipetest.NewRecordingSink()
	l := pipetest.NewMemoryLog("log", first)
	c, err := config(l, m, sink).filled()
	if err != nil {
		t.Fatal(err)
	}
	sub, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(sub, pipeline.Cursor{Log: "log", Low: first, High: first})
	r := s.reader()
	for _, base := range []pipeline.Offset{first, first + 1<<40} {
		b := batchOf(time.Unix(1, 0), keys(1, 2)...)
		b.Base = base
		if err := r.hand(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		s.arrived(<-s.items)
	}
	if s.front.Low() != first || s.front.End() != first+1<<40+2 {
		t.Fatalf("frontier %d to %d", s.front.Low(), s.front.End())
	}
	for s.live.first != nil {
		s.done(s.live.first, 0, 2)
	}
	if got := s.front.Low(); got != first+1<<40+2 {
		t.Fatalf("low %d", got)
	}
}
