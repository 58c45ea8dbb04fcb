package deliver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// Each range's lane says what is open in it: by the map in force at the event's offset.
func TestLanesOfRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := func(d *pipeline.Delivery) (pipeline.Outcomes, error) {
			out := make(pipeline.Outcomes, d.Events)
			for i := range out {
				out[i].Class = pipeline.Retry
			}
			return out, nil
		}
		s := play(t, nil, stuck, stuck, stuck)
		if st := s.run.Status(); st.Lanes != nil {
			t.Fatalf("%+v", st.Lanes)
		}
		space := table.KeySpace
		appendTo(t, s.l, keys(1)...) // before the split
		c, err := new(partition.Maps).Split(space, pipeline.WholeRange, []byte("key-5"), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.l.Append(context.Background(), pipetest.Changed(c)); err != nil {
			t.Fatal(err)
		}
		appendTo(t, s.l, keys(2, 7, 8)...)
		lanes := map[uint64]Lane{}
		for _, l := range s.after(1500 * time.Millisecond).Lanes {
			lanes[l.ID] = l
		}
		if len(lanes) != 3 || lanes[0].Open != 1 || lanes[1].Open != 1 || lanes[2].Open != 2 || lanes[0].Low != first || lanes[1].Low != first+1 || lanes[2].Low != first+2 {
			t.Fatalf("%+v", lanes)
		}
		if lanes[2].Oldest.IsZero() {
			t.Error("no time of the oldest open event")
		}
		st := s.after(time.Hour)
		if len(st.Lanes) != 2 || st.Lanes[0].Open != 0 || st.Lanes[1].Open != 0 || st.Lanes[1].Low != first+4 {
			t.Fatalf("when all is done: %+v", st.Lanes)
		}
		s.run.end()
	})
}
