package deliver

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

func TestDeliversInOrderAndGoesOnFromTheCursor(t *testing.T) {
	for _, sinkIs := range []string{"ordinary", "ordered"} {
		for _, order := range []Order{OrderKey, OrderSource, OrderNone} {
			synctest.Test(t, func(t *testing.T) {
				l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), pipetest.NewRecordingSink()
				c := config(l, m, sink)
				if sinkIs == "ordered" {
					c.Sink = ordered{sink}
				}
				c.Order = order
				appendTo(t, l, keys(1, 2, 3, 1, 2)...)
				r := start(t, c)
				appendTo(t, l, keys(1, 4)...)
				synctest.Wait()
				r.end()
				got := offsets(sink.All())
				slices.Sort(got)
				if want := []pipeline.Offset{1000, 1001, 1002, 1003, 1004, 1005, 1006}; !slices.Equal(got, want) {
					t.Fatalf("%s order %d: delivered %v", sinkIs, order, got)
				}
				if c := m.cursor("sub"); c.Low != 1007 || len(c.Pending) > 0 {
					t.Fatalf("cursor %+v", c)
				}
				r = start(t, c)
				appendTo(t, l, keys(9)...)
				synctest.Wait()
				if st := r.Status(); st.State != StateRunning || st.Low != 1008 || st.Open != 0 || st.Buffered != 0 || st.Delivered != 1 {
					t.Fatalf("status %+v", st)
				}
				r.end()
				if n := len(sink.All()); n != 8 {
					t.Fatalf("%d events after a restart, want 8", n)
				}
			})
		}
	}
}

func TestCursorIsSavedEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m, sink := pipetest.NewMemoryLog("log", first), newMemory(), pipetest.NewRecordingSink()
		r := start(t, config(l, m, sink))
		appendTo(t, l, keys(1, 2)...)
		synctest.Wait()
		if low := m.cursor("sub").Low; low != first {
			t.Fatalf("saved at once: %d", low)
		}
		time.Sleep(1100 * time.Millisecond) // virtual
		synctest.Wait()
		if low := m.cursor("sub").Low; low != first+2 {
			t.Fatalf("not saved after a second: %d", low)
		}
		if o, ok := r.Progress(); !ok || o != first+2 {
			t.Fatalf("progress %d %v", o, ok)
		}
		saves := m.saves
		time.Sleep(time.Hour)
		synctest.Wait()
		if m.saves != saves {
			t.Fatalf("an idle subscription saved %d times", m.saves-saves)
		}
		r.end()
	})
}
