package partition

import (
	"fmt"
	"slices"
	"sort"

	"github.com/leat-cdc/leat/pipeline"
)

// History is the maps of a log by offset. Not for concurrent use; the Maps that it returns are immutable. The
// zero History has whole spaces only.
type History struct {
	from []pipeline.Offset
	maps []*Maps
	life map[rangeName]*Life
}

type rangeName struct {
	space string
	id    uint64
}

// Life is what is known of a range, past or present.
type Life struct {
	pipeline.Range
	// Opened and Closed are the offsets that it owned keys from and up to; Closed 0: it is open.
	Opened, Closed pipeline.Offset
	// Children are the ranges that its keys went to.
	Children []uint64
	Reason   string
}

var wholeMaps = new(Maps)

// NewHistory builds the history from what a log keeps (pipeline.Log.Ranges).
func NewHistory(kept []pipeline.RangeAt) (*History, error) {
	h := new(History)
	for _, r := range kept {
		if err := h.Add(r); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// Add notes a change. One that it knows already, as a reader of the log meets it, is left out.
func (h *History) Add(r pipeline.RangeAt) error {
	last := h.Last()
	if len(r.Closed) > 0 && r.Epoch <= last.Map(r.Space).Epoch {
		return nil
	}
	if n := len(h.from); n > 0 && r.At < h.from[n-1] {
		return fmt.Errorf("change of ranges at offset %d behind one at %d", r.At, h.from[n-1])
	}
	maps, err := last.Apply(r.RangeChange)
	if err != nil {
		return fmt.Errorf("change of ranges at offset %d: %w", r.At, err)
	}
	h.note(r, last)
	if n := len(h.from); n > 0 && h.from[n-1] == r.At {
		h.maps[n-1] = maps
		return nil
	}
	h.from, h.maps = append(h.from, r.At), append(h.maps, maps)
	return nil
}

// note keeps the lives.
func (h *History) note(r pipeline.RangeAt, before *Maps) {
	if h.life == nil {
		h.life = map[rangeName]*Life{}
	}
	m := before.Map(r.Space)
	var children []uint64
	for _, o := range r.Opened {
		children = append(children, o.ID)
		h.life[rangeName{r.Space, o.ID}] = &Life{Range: o, Opened: r.At, Reason: r.Reason}
	}
	for _, id := range r.Closed {
		l := h.life[rangeName{r.Space, id}]
		if l == nil { // the whole range, from the log's beginning
			l = &Life{Range: m.ranges[m.Index(id)]}
			h.life[rangeName{r.Space, id}] = l
		}
		l.Closed, l.Children = r.At, children
	}
}

// At returns the maps in force for the event at o. Before the first change that is kept, spaces are taken as
// that change found them only if it says so: a log states its maps where it begins.
func (h *History) At(o pipeline.Offset) *Maps {
	i := sort.Search(len(h.from), func(i int) bool { return h.from[i] > o })
	if i == 0 {
		return wholeMaps
	}
	return h.maps[i-1]
}

// Last returns the newest maps.
func (h *History) Last() *Maps {
	if len(h.maps) == 0 {
		return wholeMaps
	}
	return h.maps[len(h.maps)-1]
}

// Forget drops what holds below o only.
func (h *History) Forget(o pipeline.Offset) {
	i := sort.Search(len(h.from), func(i int) bool { return h.from[i] > o }) - 1
	if i > 0 {
		h.from, h.maps = slices.Delete(h.from, 0, i), slices.Delete(h.maps, 0, i)
	}
}

// Lineage returns the life of all ranges of the space that the log knows of, parents before children. A
// parent that is named and not there is older than what the log keeps.
func (h *History) Lineage(space string) []Life {
	var all []Life
	for n, l := range h.life {
		if n.space == space {
			all = append(all, *l)
		}
	}
	if len(all) == 0 {
		return []Life{{Range: Whole(space).ranges[0]}}
	}
	slices.SortFunc(all, func(a, b Life) int {
		switch {
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return 0
	})
	return all
}
