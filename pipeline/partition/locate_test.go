package partition

import (
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// inRanges is a history whose space "s" has so many ranges from offset 10 on, of step keys each.
func inRanges(t testing.TB, n, step int) *History {
	h := new(History)
	for i := 1; i < n; i++ {
		m := h.Last().Map("s").Ranges()
		c, err := h.Last().Split("s", m[len(m)-1].ID, numbered(i*step), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Add(pipeline.RangeAt{At: 10, RangeChange: c}); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestLocate(t *testing.T) {
	h := inRanges(t, 4, 25)
	b := sampledBatch("s", 100)
	defer b.Release()
	b.Tables = append(b.Tables, &schemas.Table{KeySpace: "other"}, &schemas.Table{KeySpace: "s"})
	b.Events[1].Table = 1
	b.Events[2].Table = pipeline.NoTable
	b.Events[99].Table = 2
	b.Events[98].Op, b.Events[98].Key = pipeline.OpTruncate, pipeline.Nowhere
	b.Base = 10
	l, err := Locate(b, h)
	if err != nil {
		t.Fatal(err)
	}
	m := h.Last().Map("s")
	for i := range b.Events {
		want := Name{"s", m.Ranges()[i/25].ID}
		switch i {
		case 1:
			want = Name{"other", pipeline.WholeRange}
		case 2:
			if l.Of[i] != NoRange {
				t.Error("a message has a range")
			}
			continue
		case 98:
			want.ID = m.Ranges()[0].ID
		}
		if got := l.Names[l.Of[i]]; got != want {
			t.Errorf("event %d: %v, want %v", i, got, want)
		}
	}
	if again, _ := Locate(b, new(History)); again != l {
		t.Error("located twice")
	}
	early := sampledBatch("s", 100)
	defer early.Release()
	if l, _ := Locate(early, h); l.Names[l.Of[99]].ID != pipeline.WholeRange {
		t.Error("an event before the change is in a range of after it")
	}
	free := new(Located)
	free.locate(b, h.Last())
	if n := testing.AllocsPerRun(20, func() { free.locate(b, h.Last()) }); n > 2 { // for the space that was never split
		t.Errorf("%v allocations per batch", n)
	}
}

func BenchmarkLocate(b *testing.B) {
	for name, n := range map[string]int{"1 range": 1, "64 ranges": 64, "1000 ranges": 1000} {
		b.Run(name, func(b *testing.B) {
			h := inRanges(b, n, 1024/n)
			batch := sampledBatch("s", 1024)
			batch.Base = 10
			l := new(Located)
			b.ReportAllocs()
			for b.Loop() {
				l.locate(batch, h.Last())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/event")
		})
	}
}
