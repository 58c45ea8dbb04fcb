package partition

import (
	"bytes"
	"slices"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
)

// Sampler looks at every n-th event that passes, n growing with the load, so that what it costs per second
// is bounded. Safe for concurrent use.
type Sampler struct {
	mu     sync.Mutex
	stride int // one of so many events is looked at
	skip   int // events to pass before the next one
	taken  []sample
	spare  []sample
	arena  []byte // the keys
	other  []byte
}

// sample stands for weight of load.
type sample struct {
	table    string // key space
	from, to int    // of the arena
	weight   float64
}

const (
	// maxSamples are kept between two calls of Take: beyond, half of them go and the others count double.
	maxSamples = 1024
	// maxSampledKey bounds what is kept of a key; a prefix is as good a place to split.
	maxSampledKey = 256
)

// weight of an event in the load of a range: 1, and 1 for each KiB of its images.
func weight(e *pipeline.Event) float64 {
	n := 0
	for _, s := range [...]pipeline.Span{e.Before, e.After} {
		if s.Present() {
			n += int(s.Len)
		}
	}
	return 1 + float64(n)/1024
}

// Add looks at a batch whose events have their keys, before it is appended. Allocates nothing when warm.
func (s *Sampler) Add(b *pipeline.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stride = max(s.stride, 1)
	i := s.skip
	for ; i < len(b.Events); i += s.stride {
		e := &b.Events[i]
		if e.Table == pipeline.NoTable || !e.Key.Present() {
			continue
		}
		if len(s.taken) >= maxSamples {
			s.halve()
		}
		key := b.Bytes(e.Key)
		key = key[:min(len(key), maxSampledKey)]
		from := len(s.arena)
		s.arena = append(s.arena, key...)
		s.taken = append(s.taken, sample{b.Tables[e.Table].KeySpace, from, len(s.arena), weight(e) * float64(s.stride)})
	}
	s.skip = i - len(b.Events)
}

// halve drops every second sample; those that stay count double.
func (s *Sampler) halve() {
	s.stride *= 2
	kept, arena := s.spare[:0], s.other[:0]
	for i := 0; i < len(s.taken); i += 2 {
		t := s.taken[i]
		from := len(arena)
		arena = append(arena, s.arena[t.from:t.to]...)
		kept = append(kept, sample{t.table, from, len(arena), 2 * t.weight})
	}
	s.spare, s.other = s.taken, s.arena
	s.taken, s.arena = kept, arena
}

// KeyLoad is the load of one key.
type KeyLoad struct {
	Key    []byte
	Weight float64
}

// Load is what a space's events weighed since the last Take, by key, sorted.
type Load struct {
	Space string
	Keys  []KeyLoad
}

// Take returns the load since the last call and begins anew.
func (s *Sampler) Take() []Load {
	s.mu.Lock()
	arena := bytes.Clone(s.arena)
	taken := slices.Clone(s.taken)
	clear(s.taken)
	s.taken, s.arena, s.stride = s.taken[:0], s.arena[:0], max(s.stride/2, 1)
	s.mu.Unlock()
	slices.SortFunc(taken, func(a, b sample) int {
		if c := bytes.Compare([]byte(a.table), []byte(b.table)); c != 0 {
			return c
		}
		return bytes.Compare(arena[a.from:a.to], arena[b.from:b.to])
	})
	var all []Load
	for _, t := range taken {
		if len(all) == 0 || all[len(all)-1].Space != t.table {
			all = append(all, Load{Space: t.table})
		}
		l := &all[len(all)-1]
		key := arena[t.from:t.to]
		if n := len(l.Keys); n > 0 && bytes.Equal(l.Keys[n-1].Key, key) {
			l.Keys[n-1].Weight += t.weight
			continue
		}
		l.Keys = append(l.Keys, KeyLoad{key, t.weight})
	}
	return all
}
