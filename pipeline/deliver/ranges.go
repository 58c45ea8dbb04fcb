package deliver

import (
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
)

// Lane is the subscription's part of one range. A range that was closed has a lane as long as events of it are
// not done.
type Lane struct {
	Space string
	ID    uint64
	// Low: every event of the range below is done. Open events were read and are not done; Parked keys.
	Low          pipeline.Offset
	Open, Parked int
	// Paused is where the range waits, from where on it is held as a whole, since too many of its keys are parked; 0: it
	// does not.
	Paused pipeline.Offset
	// Oldest is when the oldest open event was committed; zero when none is open.
	Oldest time.Time
}

// lanesEvery is how often lanes are counted: nothing is done per event.
const lanesEvery = time.Second

// laneCount counts a session's open events by range.
type laneCount struct {
	due     time.Time // when to count again
	last    time.Time
	history *partition.History
	known   pipeline.RangeAt // the newest change in history
	count   int
}

// follow brings the history up to what the log knows: all that was read is behind it.
func (c *laneCount) follow(log pipeline.Log) bool {
	kept := log.Ranges()
	if len(kept) == 0 {
		return false
	}
	newest := kept[len(kept)-1]
	if c.history != nil && len(kept) == c.count && newest.At == c.known.At && newest.Space == c.known.Space && newest.Epoch == c.known.Epoch {
		return true
	}
	h, err := partition.NewHistory(kept)
	if err != nil {
		return false // the engine warned when it opened the log
	}
	c.history, c.known, c.count = h, newest, len(kept)
	return true
}

// countLanes counts the open events by range, at most once in lanesEvery.
func (s *session) countLanes(now time.Time) {
	c := &s.byRange
	if s.cfg.window != nil {
		return
	}
	if now.Sub(c.last) < lanesEvery {
		if c.history != nil && s.live.first != nil {
			c.due = c.last.Add(lanesEvery)
		}
		return
	}
	c.last, c.due = now, time.Time{}
	if !c.follow(s.cfg.Log) {
		return
	}
	lanes := map[partition.Name]*Lane{}
	for it := s.live.first; it != nil; it = it.after {
		l, err := partition.Locate(it.batch, c.history)
		if err != nil {
			continue
		}
		for _, run := range it.runs {
			for i := run.From; i < run.To; i++ {
				if o := it.batch.Offset(int(i)); l.Of[i] != partition.NoRange && !s.front.Done(o) {
					name := l.Names[l.Of[i]]
					n := lanes[name]
					if n == nil {
						n = &Lane{Space: name.Space, ID: name.ID, Low: o, Oldest: time.UnixMicro(it.batch.Txs[it.batch.Events[i].Tx].Time).UTC()}
						lanes[name] = n
					}
					n.Open++
				}
			}
		}
	}
	s.sub.mu.Lock()
	s.sub.lanes = lanes
	s.sub.mu.Unlock()
}

// laneList is what Status says: the ranges that are open now, and those closed that are not done. open is what a
// session counted.
func (s *Subscription) laneList(st *Status, open map[partition.Name]*Lane) []Lane {
	s.listed.Lock()
	defer s.listed.Unlock()
	c := &s.listed.laneCount // built anew by each call, fifty subscriptions' took 2 % of a core
	if !c.follow(s.cfg.Log) {
		return nil
	}
	if st.Low == st.Read {
		open = nil // counted before the last of them was done
	}
	maps := c.history.Last()
	var list []Lane
	at := map[partition.Name]int{}
	for _, space := range maps.Spaces() {
		for _, r := range maps.Map(space).Ranges() {
			name := partition.Name{Space: space, ID: r.ID}
			at[name] = len(list)
			l := Lane{Space: space, ID: r.ID, Low: st.Read}
			if o := open[name]; o != nil {
				l = *o
			}
			list = append(list, l)
		}
	}
	s.parks.mu.Lock()
	s.parks.all(func(p *parked) {
		if p.interval != nil {
			for i, l := range list {
				m := maps.Map(p.Space)
				if l.Space == p.Space && overlap(p.interval, &m.Ranges()[m.Index(l.ID)]) {
					list[i].Paused, list[i].Low = p.From, min(l.Low, p.From)
				}
			}
			return
		}
		m := maps.Map(p.Space)
		if i, ok := at[partition.Name{Space: p.Space, ID: m.Ranges()[m.Find([]byte(p.Key))].ID}]; ok {
			list[i].Parked++
		}
	})
	s.parks.mu.Unlock()
	var closed []Lane
	for name, o := range open {
		if _, ok := at[name]; !ok && len(c.history.Lineage(name.Space)) > 1 {
			closed = append(closed, *o)
		}
	}
	slices.SortFunc(closed, func(a, b Lane) int { return int(int64(a.ID) - int64(b.ID)) })
	return append(list, closed...)
}
