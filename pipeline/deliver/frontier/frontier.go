// Package frontier tells what of a stretch of offsets is done, in whatever order it is.
package frontier

import (
	"math/bits"
	"sort"

	"github.com/leat-cdc/leat/pipeline"
)

// Frontier knows what of the offsets read so far is done: the acknowledged prefix, and the holes above
// it. Offsets come in stretches, in order and without gaps (one per batch); within a stretch a bit per
// event says that it is done, so that a whole Delivery is marked by words, not by events, and nothing
// is looked up by key. Pure; owned by one goroutine. The idea of an acknowledged prefix as a type of its
// own is Pebble's (internal/ackseq).
type Frontier struct {
	segs  []segment
	head  int    // segs[:head] are done and forgotten
	first uint64 // id of segs[head]
	end   pipeline.Offset
	free  [][]uint64
}

type segment struct {
	from, to pipeline.Offset
	left     int
	done     []uint64 // nil: all of it is, and always was
}

// New begins at low: everything below is done.
func New(low pipeline.Offset) *Frontier { return &Frontier{end: low} }

// End is where the next stretch begins.
func (f *Frontier) End() pipeline.Offset { return f.end }

// From is where the stretch of that id, which is not all done, begins.
func (f *Frontier) From(id uint64) pipeline.Offset { return f.segs[f.head+int(id-f.first)].from }

// Add appends the stretch from the end to `to` and returns its id; nothing of it is done yet. An empty
// stretch is allowed and done.
func (f *Frontier) Add(to pipeline.Offset) uint64 {
	if f.head > 64 && f.head > len(f.segs)/2 {
		n := copy(f.segs, f.segs[f.head:])
		clear(f.segs[n:])
		f.segs, f.head = f.segs[:n], 0
	}
	n := int(to - f.end)
	words := (n + 63) / 64
	var done []uint64
	if k := len(f.free); k > 0 && cap(f.free[k-1]) >= words {
		done, f.free = f.free[k-1][:words], f.free[:k-1]
		clear(done)
	} else {
		done = make([]uint64, words)
	}
	f.segs = append(f.segs, segment{from: f.end, to: to, left: n, done: done})
	f.end = to
	return f.first + uint64(len(f.segs)-f.head) - 1
}

// Skip appends a stretch of which nothing is to be done, however long: a gap that a restored log left, what
// retention took, what no filter let through. It costs no memory per event.
func (f *Frontier) Skip(to pipeline.Offset) {
	if to <= f.end {
		return
	}
	if n := len(f.segs); n > f.head && f.segs[n-1].done == nil {
		f.segs[n-1].to = to
	} else {
		f.segs = append(f.segs, segment{from: f.end, to: to})
	}
	f.end = to
}

// Cut forgets all above `to`, where a stretch ends that is not done: it comes again.
func (f *Frontier) Cut(to pipeline.Offset) {
	for len(f.segs) > f.head && f.segs[len(f.segs)-1].from >= to {
		last := &f.segs[len(f.segs)-1]
		if last.done != nil && len(f.free) < 64 {
			f.free = append(f.free, last.done)
		}
		*last = segment{}
		f.segs = f.segs[:len(f.segs)-1]
	}
	f.end = to
}

// Mark says that [from, to), which lies in the stretch of that id, is done, and returns how many of it
// were not before.
func (f *Frontier) Mark(id uint64, from, to pipeline.Offset) int {
	if id < f.first || from >= to {
		return 0
	}
	s := &f.segs[f.head+int(id-f.first)]
	a, b := uint(from-s.from), uint(to-s.from)
	fresh := 0
	for w := a / 64; w*64 < b; w++ {
		mask := ^uint64(0)
		if w == a/64 {
			mask &= ^uint64(0) << (a % 64)
		}
		if rest := b - w*64; rest < 64 {
			mask &= 1<<rest - 1
		}
		fresh += bits.OnesCount64(mask &^ s.done[w])
		s.done[w] |= mask
	}
	s.left -= fresh
	return fresh
}

// Low returns the offset of the first event that is not done, or the end.
func (f *Frontier) Low() pipeline.Offset {
	for f.head < len(f.segs) {
		s := &f.segs[f.head]
		if s.left > 0 {
			for w, d := range s.done {
				if d != ^uint64(0) {
					return s.from + pipeline.Offset(w*64+bits.TrailingZeros64(^d))
				}
			}
		}
		if s.done != nil && len(f.free) < 64 {
			f.free = append(f.free, s.done)
		}
		*s = segment{}
		f.head++
		f.first++
	}
	f.segs, f.head = f.segs[:0], 0
	return f.end
}

// Done reports whether o is done. What was never added and lies below the end is done.
func (f *Frontier) Done(o pipeline.Offset) bool {
	if o >= f.end {
		return false
	}
	live := f.segs[f.head:]
	i := sort.Search(len(live), func(i int) bool { return live[i].to > o })
	if i == len(live) || o < live[i].from {
		return true
	}
	if live[i].left == 0 {
		return true
	}
	n := o - live[i].from
	return live[i].done[n/64]&(1<<(n%64)) != 0
}

// Pending lists what below `upTo` is not done, in order, as at most limit ranges; when there are more,
// the last one covers the rest (a superset: too much is redelivered, nothing lost).
func (f *Frontier) Pending(upTo pipeline.Offset, limit int) []pipeline.OffsetRange {
	var out []pipeline.OffsetRange
	for i := f.head; i < len(f.segs); i++ {
		s := &f.segs[i]
		if s.from >= upTo {
			break
		}
		if s.left == 0 {
			continue
		}
		to := min(s.to, upTo)
		for o := s.from; o < to; {
			o = s.next(o, to, false)
			if o >= to {
				break
			}
			e := s.next(o, to, true)
			if n := len(out); n > 0 && out[n-1].To == o {
				out[n-1].To = e
			} else if n == limit {
				out[n-1].To = upTo
				return out
			} else {
				out = append(out, pipeline.OffsetRange{From: o, To: e})
			}
			o = e
		}
	}
	return out
}

// next returns the first offset of [o, to) whose bit is `done`, else to.
func (s *segment) next(o, to pipeline.Offset, done bool) pipeline.Offset {
	for o < to {
		n := uint(o - s.from)
		w := s.done[n/64]
		if !done {
			w = ^w
		}
		w >>= n % 64
		if w != 0 {
			return min(to, o+pipeline.Offset(bits.TrailingZeros64(w)))
		}
		o += pipeline.Offset(64 - n%64)
	}
	return to
}
