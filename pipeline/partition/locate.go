package partition

import (
	"bytes"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
)

// Name of a range.
type Name struct {
	Space string
	ID    uint64
}

// NoRange is the place of events that have no range: messages.
const NoRange = ^uint16(0)

// Located says which range each event of a batch is in. It lives as long as the batch.
type Located struct {
	Names []Name
	// Of is an index into Names for each event, or NoRange.
	Of []uint16

	maps  []*Map
	first []uint16
}

type locatedKey struct{}

var located = sync.Pool{New: func() any { return new(Located) }}

// Locate finds the range of each event, by the maps in force at the batch's Base: a change is a batch of its
// own, so all events of a batch are of one epoch. It is done once per batch, whoever asks first; allocates
// nothing per event.
func Locate(b *pipeline.Batch, h *History) (*Located, error) {
	d, err := b.Derive(locatedKey{}, func(b *pipeline.Batch) (pipeline.Derived, error) {
		l := located.Get().(*Located)
		l.locate(b, h.At(b.Base))
		return l, nil
	})
	if err != nil {
		return nil, err
	}
	return d.(*Located), nil
}

func (l *Located) locate(b *pipeline.Batch, maps *Maps) {
	l.Names, l.maps, l.first, l.Of = l.Names[:0], l.maps[:0], l.first[:0], l.Of[:0]
	for i, t := range b.Tables {
		m, first := maps.Map(t.KeySpace), -1
		for j := range i {
			if l.maps[j].Space == t.KeySpace {
				m, first = l.maps[j], int(l.first[j])
			}
		}
		if first < 0 {
			first = len(l.Names)
			for _, r := range m.ranges {
				l.Names = append(l.Names, Name{t.KeySpace, r.ID})
			}
		}
		l.maps, l.first = append(l.maps, m), append(l.first, uint16(first))
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Table == pipeline.NoTable {
			l.Of = append(l.Of, NoRange)
			continue
		}
		n := l.first[e.Table]
		if m := l.maps[e.Table]; len(m.ranges) > 1 && e.Key.Present() {
			n += m.find(b.Bytes(e.Key))
		}
		l.Of = append(l.Of, n)
	}
}

// find is Find without a closure.
func (m *Map) find(key []byte) uint16 {
	low, high := 0, len(m.ranges)-1 // the range lies in [low, high]
	for low < high {
		mid := (low + high + 1) / 2
		if bytes.Compare(m.ranges[mid].Start, key) <= 0 {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return uint16(low)
}

// Size implements pipeline.Derived.
func (l *Located) Size() int { return cap(l.Of)*2 + cap(l.Names)*24 }

// Free implements pipeline.Derived.
func (l *Located) Free() {
	clear(l.maps)
	located.Put(l)
}
