package frontier

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
)

// TestFrontierAgainstAModel: a set of done offsets says the same.
func TestFrontierAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const first = pipeline.Offset(1000)
		f, end := New(first), first
		done := map[pipeline.Offset]bool{}
		type stretch struct {
			id       uint64
			from, to pipeline.Offset
		}
		var all []stretch
		low := func() pipeline.Offset {
			for o := first; o < end; o++ {
				if !done[o] {
					return o
				}
			}
			return end
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 5).Draw(t, "skip") == 0 {
				to := end + pipeline.Offset(rapid.IntRange(0, 200).Draw(t, "length"))
				f.Skip(to)
				for ; end < to; end++ {
					done[end] = true
				}
			} else if len(all) == 0 || rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				to := end + pipeline.Offset(rapid.IntRange(0, 200).Draw(t, "length"))
				all = append(all, stretch{f.Add(to), end, to})
				end = to
			} else {
				s := all[rapid.IntRange(0, len(all)-1).Draw(t, "stretch")]
				from := s.from + pipeline.Offset(rapid.IntRange(0, int(s.to-s.from)).Draw(t, "from"))
				to := from + pipeline.Offset(rapid.IntRange(0, int(s.to-from)).Draw(t, "to"))
				fresh := 0
				for o := from; o < to; o++ {
					if !done[o] {
						fresh++
					}
					done[o] = true
				}
				if n := f.Mark(s.id, from, to); n != fresh {
					t.Fatalf("marked %d, want %d", n, fresh)
				}
			}
			if f.Low() != low() {
				t.Fatalf("low %d, want %d", f.Low(), low())
			}
		}
		var want []pipeline.OffsetRange
		for o := first; o < end; o++ {
			if f.Done(o) != done[o] {
				t.Fatalf("%d done: %v", o, f.Done(o))
			}
			if done[o] {
				continue
			}
			if n := len(want); n > 0 && want[n-1].To == o {
				want[n-1].To++
			} else {
				want = append(want, pipeline.OffsetRange{From: o, To: o + 1})
			}
		}
		if got := f.Pending(end, 1000); !slices.Equal(got, want) {
			t.Fatalf("pending %v, want %v", got, want)
		}
		if len(want) > 2 {
			want = append(want[:1:1], pipeline.OffsetRange{From: want[1].From, To: end})
			if got := f.Pending(end, 2); !slices.Equal(got, want) {
				t.Fatalf("two ranges: %v, want %v", got, want)
			}
		}
	})
}
