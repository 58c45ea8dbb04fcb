package partition

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/leat-cdc/leat/pipeline"
)

// Map is the ranges of one key space at one epoch. Immutable; the ranges tile the space.
type Map struct {
	Space string
	// Epoch 0: never split.
	Epoch  uint64
	ranges []pipeline.Range // by Start
}

// Whole returns the map of a space that was never split: one range, pipeline.WholeRange.
func Whole(space string) *Map {
	return &Map{Space: space, ranges: []pipeline.Range{{ID: pipeline.WholeRange, Space: space}}}
}

// Ranges returns the ranges in the order of their keys; not to be changed.
func (m *Map) Ranges() []pipeline.Range { return m.ranges }

// Find returns the index in Ranges of the range that owns the encoded key. An event without a key (a
// barrier, a table without one) belongs to the first.
func (m *Map) Find(key []byte) int {
	return sort.Search(len(m.ranges)-1, func(i int) bool { return bytes.Compare(m.ranges[i+1].Start, key) > 0 })
}

// Index returns the index in Ranges of a range, -1 when there is none of this ID.
func (m *Map) Index(id uint64) int {
	return slices.IndexFunc(m.ranges, func(r pipeline.Range) bool { return r.ID == id })
}

// Maps are the maps of all key spaces of a log at one offset. Immutable. The zero value's spaces are whole.
type Maps struct {
	spaces map[string]*Map
	last   uint64 // the highest ID given out
	count  int    // ranges of spaces that were split
}

// Map returns the map of a space.
func (s *Maps) Map(space string) *Map {
	if m := s.spaces[space]; m != nil {
		return m
	}
	return Whole(space)
}

// Spaces that were ever split, sorted.
func (s *Maps) Spaces() []string {
	all := make([]string, 0, len(s.spaces))
	for name := range s.spaces {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// RangeError: a change that cannot be made. Nothing was changed.
type RangeError struct{ What string }

// Error says why and what to do.
func (e *RangeError) Error() string { return e.What }

func refuse(format string, args ...any) error { return &RangeError{fmt.Sprintf(format, args...)} }

// ErrEpoch: the change was made from another map than the one that it meets.
var ErrEpoch = errors.New("the ranges were changed meanwhile")

// Split returns the change that divides a range of the space at an encoded key, the first one of the upper
// half; Apply makes it. A *RangeError says why it cannot be.
func (s *Maps) Split(space string, id uint64, at []byte, reason string) (pipeline.RangeChange, error) {
	m := s.Map(space)
	i := m.Index(id)
	if i < 0 {
		return pipeline.RangeChange{}, refuse("key space %q has no range %d; it has %s", space, id, m.names())
	}
	r := m.ranges[i]
	switch {
	case len(at) == 0 || bytes.Equal(at, r.Start):
		return pipeline.RangeChange{}, refuse("range %d begins at this key: nothing would be left of it; name a key inside of the range", id)
	case !r.Contains(at):
		owner := m.ranges[m.Find(at)].ID
		return pipeline.RangeChange{}, refuse("the key is not in range %d of key space %q but in range %d", id, space, owner)
	case s.count+2 > pipeline.MaxRanges:
		return pipeline.RangeChange{}, refuse("the log has %d ranges, at most %d are allowed; merge some first", s.count, pipeline.MaxRanges)
	}
	at = bytes.Clone(at)
	parents := []uint64{id}
	return pipeline.RangeChange{Epoch: m.Epoch + 1, Space: space, Closed: []uint64{id}, Reason: reason, Opened: []pipeline.Range{
		{ID: s.last + 1, Space: space, Start: r.Start, End: at, Parents: parents},
		{ID: s.last + 2, Space: space, Start: at, End: r.End, Parents: parents},
	}}, nil
}

// Merge returns the change that makes one range of neighbours, named in any order. A *RangeError says why it
// cannot be.
func (s *Maps) Merge(space string, ids []uint64, reason string) (pipeline.RangeChange, error) {
	m := s.Map(space)
	if len(ids) < 2 {
		return pipeline.RangeChange{}, refuse("a merge needs two ranges or more, not %d", len(ids))
	}
	at := make([]int, 0, len(ids))
	for _, id := range ids {
		i := m.Index(id)
		if i < 0 {
			return pipeline.RangeChange{}, refuse("key space %q has no range %d; it has %s", space, id, m.names())
		}
		if slices.Contains(at, i) {
			return pipeline.RangeChange{}, refuse("range %d is named twice", id)
		}
		at = append(at, i)
	}
	slices.Sort(at)
	c := pipeline.RangeChange{Epoch: m.Epoch + 1, Space: space, Reason: reason}
	for n, i := range at {
		if n > 0 && i != at[n-1]+1 {
			return pipeline.RangeChange{}, refuse("ranges %d and %d are not neighbours: range %d lies between them", m.ranges[at[n-1]].ID, m.ranges[i].ID, m.ranges[at[n-1]+1].ID)
		}
		c.Closed = append(c.Closed, m.ranges[i].ID)
	}
	first, last := m.ranges[at[0]], m.ranges[at[len(at)-1]]
	c.Opened = []pipeline.Range{{ID: s.last + 1, Space: space, Start: first.Start, End: last.End, Parents: c.Closed}}
	return c, nil
}

func (m *Map) names() string {
	if len(m.ranges) > 16 {
		return fmt.Sprintf("%d others", len(m.ranges))
	}
	ids := make([]uint64, len(m.ranges))
	for i, r := range m.ranges {
		ids[i] = r.ID
	}
	return fmt.Sprint(ids)
}

// Apply returns the maps after the change. ErrEpoch (wrapped) when the change was made from another map, a
// *RangeError when it does not fit.
func (s *Maps) Apply(c pipeline.RangeChange) (*Maps, error) {
	m := s.Map(c.Space)
	whole := len(c.Closed) == 0
	if whole && m.Epoch > 0 || !whole && c.Epoch != m.Epoch+1 {
		return nil, fmt.Errorf("key space %q is at epoch %d, the change is epoch %d: %w", c.Space, m.Epoch, c.Epoch, ErrEpoch)
	}
	from, to := 0, len(m.ranges)
	if !whole {
		if from = m.Index(c.Closed[0]); from < 0 {
			return nil, refuse("key space %q has no range %d", c.Space, c.Closed[0])
		}
		to = from + len(c.Closed)
		for i, id := range c.Closed {
			if from+i >= len(m.ranges) || m.ranges[from+i].ID != id {
				return nil, refuse("the ranges %v of key space %q are not neighbours", c.Closed, c.Space)
			}
		}
	}
	if err := tiles(c.Opened, m.ranges[from].Start, m.ranges[to-1].End); err != nil {
		return nil, err
	}
	last := s.last
	for _, r := range c.Opened {
		if r.Space != c.Space || !whole && r.ID <= s.last {
			return nil, refuse("range %d of key space %q: its id was given out before, or it is of another space", r.ID, c.Space)
		}
		last = max(last, r.ID)
	}
	next := &Maps{spaces: make(map[string]*Map, len(s.spaces)+1), last: last, count: s.count + len(c.Opened)}
	for name, o := range s.spaces {
		next.spaces[name] = o
	}
	if s.spaces[c.Space] != nil {
		next.count -= to - from
	}
	next.spaces[c.Space] = &Map{Space: c.Space, Epoch: c.Epoch, ranges: slices.Concat(m.ranges[:from], c.Opened, m.ranges[to:])}
	return next, nil
}

// tiles checks that ranges cover [start, end) without gap or overlap.
func tiles(ranges []pipeline.Range, start, end []byte) error {
	for i, r := range ranges {
		if !bytes.Equal(r.Start, start) || r.End != nil && bytes.Compare(r.End, r.Start) <= 0 || r.End == nil && i < len(ranges)-1 {
			return refuse("range %d leaves a gap or overlaps its neighbour", r.ID)
		}
		start = r.End
	}
	if len(ranges) == 0 || !bytes.Equal(start, end) || (start == nil) != (end == nil) {
		return refuse("the opened ranges do not cover what the closed ones did")
	}
	return nil
}
