package partition

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Policy says when ranges are split and merged by load.
type Policy struct {
	// Hot is the load per second (events, plus one for each KiB of their images) above which a range is split; 0: never.
	Hot float64
	// HotSamples in a row must be hot; default 3.
	HotSamples int
	// Cooldown a range is left alone for after it was opened; default 1 min.
	Cooldown time.Duration
	// Cold: two neighbours whose load together stayed below Hot/10 for so long are merged; default 5 min.
	Cold time.Duration
	// Ranges at most that are made by load, of all spaces together; default 64.
	Ranges int
}

// coldShare of Hot is what two neighbours may have together to be merged: far below what a split leaves, so
// that nothing flaps.
const coldShare = 0.1

// Balancer follows the load of the ranges and says what to change. Not for concurrent use; it reads no
// clock.
type Balancer struct {
	policy Policy
	seen   map[rangeName]*heat
	at     time.Time
}

type heat struct {
	opened time.Time
	hot    int
	rate   float64
	// cold is since when the range was cold together with its right neighbour; zero: it is not.
	cold time.Time
	next uint64 // that neighbour
	// stuck: hot, but a split would not help.
	stuck string
}

// NewBalancer fills in the policy's defaults.
func NewBalancer(p Policy) *Balancer {
	if p.HotSamples == 0 {
		p.HotSamples = 3
	}
	if p.Cooldown == 0 {
		p.Cooldown = time.Minute
	}
	if p.Cold == 0 {
		p.Cold = 5 * time.Minute
	}
	if p.Ranges == 0 {
		p.Ranges = 64
	}
	return &Balancer{policy: p, seen: map[rangeName]*heat{}}
}

// Step takes the load since the last step and returns the changes to make, at most one for each space, each
// from maps. Those that are not made come again.
func (b *Balancer) Step(now time.Time, maps *Maps, loads []Load) []pipeline.RangeChange {
	took := now.Sub(b.at).Seconds()
	first := b.at.IsZero()
	b.at = now
	if b.policy.Hot <= 0 || first || took <= 0 {
		return nil
	}
	var changes []pipeline.RangeChange
	spaces := maps.Spaces()
	for _, l := range loads {
		if !slices.Contains(spaces, l.Space) {
			spaces = append(spaces, l.Space)
		}
	}
	slices.Sort(spaces)
	alive := make(map[rangeName]*heat, len(b.seen))
	for _, space := range spaces {
		var keys []KeyLoad
		if i := slices.IndexFunc(loads, func(l Load) bool { return l.Space == space }); i >= 0 {
			keys = loads[i].Keys
		}
		changes = b.space(now, took, maps, space, keys, alive, changes)
	}
	b.seen = alive
	return changes
}

// space judges one key space.
func (b *Balancer) space(now time.Time, took float64, maps *Maps, space string, keys []KeyLoad, alive map[rangeName]*heat, changes []pipeline.RangeChange) []pipeline.RangeChange {
	m := maps.Map(space)
	heats := make([]*heat, len(m.ranges))
	parts := make([][]KeyLoad, len(m.ranges))
	for i, r := range m.ranges {
		n := len(keys)
		if r.End != nil {
			n, _ = slices.BinarySearchFunc(keys, r.End, func(k KeyLoad, end []byte) int { return bytes.Compare(k.Key, end) })
		}
		parts[i], keys = keys[:n], keys[n:]
		h := b.seen[rangeName{space, r.ID}]
		if h == nil {
			h = &heat{opened: now}
		}
		alive[rangeName{space, r.ID}] = h
		heats[i] = h
		h.rate = sum(parts[i]) / took
		if h.rate >= b.policy.Hot {
			h.hot++
		} else {
			h.hot, h.stuck = 0, ""
		}
	}
	for i, h := range heats {
		if h.hot < b.policy.HotSamples || now.Sub(h.opened) < b.policy.Cooldown && m.Epoch > 0 || len(m.ranges) > 1 && maps.count >= b.policy.Ranges {
			continue
		}
		at, why := splitPoint(parts[i], m.ranges[i])
		if h.stuck = why; why != "" {
			continue
		}
		c, err := maps.Split(space, m.ranges[i].ID, at, fmt.Sprintf("load %.0f/s, over %.0f/s", h.rate, b.policy.Hot))
		if err != nil {
			h.stuck = err.Error()
			continue
		}
		return append(changes, c)
	}
	return b.cold(now, maps, m, heats, changes)
}

// cold looks for neighbours that a merge would not make hot again.
func (b *Balancer) cold(now time.Time, maps *Maps, m *Map, heats []*heat, changes []pipeline.RangeChange) []pipeline.RangeChange {
	merged := false
	for i := 0; i+1 < len(heats); i++ {
		h, n := heats[i], heats[i+1]
		next := m.ranges[i+1].ID
		if h.rate+n.rate >= b.policy.Hot*coldShare {
			h.cold = time.Time{}
			continue
		}
		if h.cold.IsZero() || h.next != next {
			h.cold, h.next = now, next
		}
		if merged || now.Sub(h.cold) < b.policy.Cold || now.Sub(h.opened) < b.policy.Cooldown || now.Sub(n.opened) < b.policy.Cooldown {
			continue
		}
		c, err := maps.Merge(m.Space, []uint64{m.ranges[i].ID, next}, fmt.Sprintf("load below %.0f/s for %v", b.policy.Hot*coldShare, b.policy.Cold))
		if err == nil {
			changes, merged = append(changes, c), true
		}
	}
	return changes
}

func sum(keys []KeyLoad) (w float64) {
	for _, k := range keys {
		w += k.Weight
	}
	return w
}

// minSampled is how many keys a range must have been seen with to be split.
const minSampled = 2

// splitPoint returns the sampled key that halves the load best. why says that none helps: one key has
// more than half of the load, and no split divides a key.
func splitPoint(keys []KeyLoad, r pipeline.Range) (at []byte, why string) {
	total := sum(keys)
	for _, k := range keys {
		if k.Weight*2 > total {
			return nil, fmt.Sprintf("one key has %.0f %% of the load", 100*k.Weight/total)
		}
	}
	if len(keys) < minSampled {
		return nil, "too few keys were seen"
	}
	best, below := total, 0.0
	for i := range keys {
		if larger := max(below, total-below); i > 0 && larger < best && !bytes.Equal(keys[i].Key, r.Start) {
			best, at = larger, keys[i].Key
		}
		below += keys[i].Weight
	}
	if at == nil {
		return nil, "no key divides it"
	}
	return at, ""
}

// Heat returns a range's load per second as of the last step, and why it is not split although it is hot;
// empty when that is not so.
func (b *Balancer) Heat(space string, id uint64) (rate float64, unsplittable string) {
	if h := b.seen[rangeName{space, id}]; h != nil {
		return h.rate, h.stuck
	}
	return 0, ""
}
