package simulation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
)

// observe looks at everything after an input: what was asked for since the last one, then what status says.
func (w *world) observe() {
	w.looksAtLog()
	list := w.calls.list()
	for _, s := range w.subs {
		s.flying = s.flying[:0]
	}
	for _, x := range list {
		if x.kind == callDeliver && x.delivery.job == "" {
			x.sub.flying = append(x.sub.flying, x.delivery)
		}
	}
	for _, x := range list {
		if x.noticed {
			continue
		}
		x.noticed = true
		switch {
		case x.kind == callDeliver && x.delivery.job != "":
			w.copies(x.delivery)
		case x.kind == callDeliver:
			w.arrives(x.delivery)
		case x.cursor != nil:
			w.saves(x.sub, *x.cursor)
		case x.kind == callResolve:
			w.resolves(x.sub, x.offset)
		}
	}
	w.readsStatus()
	w.trace.digest(names(list))
}

// excused: on purpose the subscriber does not get the event.
func (w *world) excused(s *subscriber, i int) bool {
	e := &w.db.history[i]
	if !s.selects(e) {
		return true
	}
	o := w.first + pipeline.Offset(i)
	if _, dead := w.store.dead[s.name][o]; dead && !s.parks() {
		return true
	}
	for _, k := range w.store.skips[s.name] {
		for _, r := range k.Ranges {
			if r.From <= o && o < r.To && w.skips(k.Reason, e) {
				return true
			}
		}
	}
	return false
}

// skips: a stretch that was left out is about the event; a discarded one only about events of its key.
func (w *world) skips(reason string, e *event) bool {
	if !strings.HasPrefix(reason, "discarded by") {
		return true
	}
	space, key, _ := strings.Cut(e.key, "/")
	return strings.HasSuffix(reason, fmt.Sprintf("key %x in %s", key, space))
}

// done: acknowledged, or left out on purpose.
func (w *world) done(s *subscriber, i int) bool { return s.acked[i] || w.excused(s, i) }

// parked: held by offset, durably.
func (w *world) parked(s *subscriber, i int) bool {
	if w.replayed(s, i) {
		return true
	}
	e := &w.db.history[i]
	o := w.first + pipeline.Offset(i)
	for _, p := range w.store.parks[s.name] {
		switch {
		case p.Interval:
			space, key, _ := strings.Cut(e.key, "/")
			if p.From <= o && !e.op.Barrier() && space == p.Space && (pipeline.Range{Start: p.Key, End: p.Until}).Contains([]byte(key)) {
				return true
			}
		case p.From == o || !p.Single && p.From < o && e.is(p.Space, p.Key):
			return true
		}
	}
	return false
}

// arrives checks a Delivery when it is sent: 2 (order, one at a time), 4 and 8 (nothing new below resolved), 5 (only
// what is durable), 11 (the same id is the same content).
func (w *world) arrives(f *flight) {
	s := f.sub
	f.revoked = map[string]int{}
	inside := map[string]int{}
	for _, c := range f.events {
		i, e := w.identify(s, c)
		if e == nil {
			return
		}
		if !s.sent[i] && c.offset < s.resolved && !w.excused(s, i) {
			w.breaks("%s got event %d for the first time, and was told that all below %d is resolved", s.name, i, s.resolved)
		}
		f.at = append(f.at, i)
		w.follows(f, i, inside)
		w.outruns(f, i)
		w.bars(s, i, inside)
		s.sent[i] = true
	}
	w.overlaps(f)
}

// identify finds what came in the history: the same id is the same content.
func (w *world) identify(s *subscriber, c carried) (int, *event) {
	i := w.index(c.offset)
	if i < 0 || i >= len(w.db.history) {
		w.breaks("%s got offset %d, the source made %d to %d", s.name, c.offset, w.first, w.first+pipeline.Offset(len(w.db.history)))
		return i, nil
	}
	e := &w.db.history[i]
	if c.op != e.op || c.table != tableNames[e.table] || !e.is(w.db.spaces[e.table], []byte(c.key)) || c.before != e.before || c.after != e.after {
		w.breaks("%s got offset %d (event %d) as %s %s, but it is %v", s.name, c.offset, i, c.op, c.table, e)
		return i, nil
	}
	if !s.selects(e) {
		w.breaks("%s got event %d, which its filter keeps out", s.name, i)
	}
	return i, e
}

// follows checks that the event goes on where its key stands.
func (w *world) follows(f *flight, i int, inside map[string]int) {
	s, e := f.sub, &w.db.history[i]
	k := s.key(e, i)
	if before, ok := inside[k]; ok && before >= i {
		w.breaks("%s got event %d after %d of the same key in one Delivery", s.name, i, before)
	}
	defer func() { inside[k], s.last[k] = i, i }()
	if s.cfg.Order == deliver.OrderNone {
		return
	}
	last, ok := s.last[k]
	if !ok {
		last = -1
	}
	narrowed := s.cfg.Order == deliver.OrderSource && w.rewound(s)
	for j := last + 1; j < i; j++ {
		if o := &w.db.history[j]; s.key(o, j) == k && !w.excused(s, j) && !(narrowed && s.acked[j]) {
			w.breaks("%s got event %d of a key after event %d, but %d lies between", s.name, i, last, j)
			return
		}
	}
	for j := i - 1; j >= 0; j-- {
		o := &w.db.history[j]
		if s.key(o, j) != k {
			continue
		}
		if _, here := inside[k]; !here && !w.done(s, j) && !s.ordered {
			w.breaks("%s got event %d before %d of the same key was acknowledged", s.name, i, j)
		}
		return
	}
}

// bars checks what waits for more than its key: the insert of a key change, and table-wide events.
func (w *world) bars(s *subscriber, i int, inside map[string]int) {
	if s.cfg.Order == deliver.OrderSource {
		return
	}
	e := &w.db.history[i]
	if e.pair && !w.done(s, i-1) {
		w.breaks("%s got the insert %d of a key change before its delete was done", s.name, i)
	}
	settled := func(j int) bool { return w.done(s, j) || w.parked(s, j) }
	for _, b := range s.barriers {
		if b < i && !settled(b) {
			w.breaks("%s got event %d before the table-wide event %d was done", s.name, i, b)
		}
	}
	if !e.op.Barrier() {
		return
	}
	if !slices.Contains(s.barriers, i) {
		s.barriers = append(s.barriers, i)
	}
	for j := range i {
		if !settled(j) {
			w.breaks("%s got the table-wide event %d before event %d was done", s.name, i, j)
			return
		}
	}
}

// overlaps: at most one Delivery of a key is out.
func (w *world) overlaps(f *flight) {
	s := f.sub
	if s.ordered || s.cfg.Order == deliver.OrderNone {
		return
	}
	for _, o := range s.flying {
		if o == f {
			continue
		}
		for _, j := range o.at {
			for _, i := range f.at {
				if s.key(&w.db.history[i], i) == s.key(&w.db.history[j], j) {
					w.breaks("%s got event %d while event %d of the same key is in flight", s.name, i, j)
					return
				}
			}
		}
	}
}

// saves checks a cursor before it is stored: what it says is done, is (1), and it does not go back (4).
func (w *world) saves(s *subscriber, c pipeline.Cursor) {
	old := w.store.cursors[s.name]
	if c.Low < old.Low || c.Resolved < old.Resolved {
		w.breaks("%s: the cursor goes back: %+v after %+v", s.name, c, old)
	}
	if old.Log == "" { // its first cursor: what lies before was gone before it came
		if c.Low > w.first {
			w.store.skips[s.name] = append(w.store.skips[s.name], pipeline.Skip{Ranges: []pipeline.OffsetRange{{From: w.first, To: c.Low}}})
		}
		return
	}
	pending := c.Pending
	for i := range w.db.history {
		o := w.first + pipeline.Offset(i)
		if o >= max(c.Low, c.High) {
			break
		}
		for len(pending) > 0 && pending[0].To <= o {
			pending = pending[1:]
		}
		if o >= c.Low && len(pending) > 0 && pending[0].From <= o {
			continue
		}
		if !w.done(s, i) && !w.parked(s, i) {
			w.breaks("%s: cursor %+v says that event %d is done, which was not acknowledged", s.name, c, i)
			return
		}
	}
	w.belowResolved(s, c.Resolved)
}

// resolves checks what a subscriber is told (1, 4).
func (w *world) resolves(s *subscriber, o pipeline.Offset) {
	if o < s.resolved {
		w.breaks("%s: resolved goes back from %d to %d", s.name, s.resolved, o)
	}
	if stored := w.store.cursors[s.name].Resolved; o > stored {
		w.breaks("%s is told that %d is resolved, on disk stands %d", s.name, o, stored)
	}
	w.belowResolved(s, o)
}

func (w *world) belowResolved(s *subscriber, o pipeline.Offset) {
	if w.index(o) > len(w.db.history) {
		w.breaks("%s: %d is resolved, the source made events up to %d", s.name, o, w.first+pipeline.Offset(len(w.db.history)))
		return
	}
	for i := 0; i < w.index(o); i++ {
		if !w.done(s, i) {
			w.breaks("%s: %d is resolved, but event %d was not acknowledged", s.name, o, i)
			return
		}
	}
}

// readsStatus checks what the product says of itself (4, 6, 7).
func (w *world) readsStatus() {
	if w.p == nil {
		return
	}
	w.mu.Lock()
	largest := w.largest
	w.mu.Unlock()
	for _, st := range w.p.engine.Status().Subscriptions {
		s := w.sub(st.Name)
		budget := s.cfg.Budget
		if budget == 0 {
			budget = 16 << 20
		}
		if st.Buffered < 0 || st.Buffered > budget+largest {
			w.breaks("%s holds %d bytes, its budget is %d and one batch (%d)", s.name, st.Buffered, budget, largest)
		}
		if st.Low < st.Persisted {
			w.breaks("%s: on disk stands %d, but it is at %d", s.name, st.Persisted, st.Low)
		}
		if c := w.store.cursors[s.name]; st.Persisted > c.Low {
			w.breaks("%s says that %d is on disk, but that is %d", s.name, st.Persisted, c.Low)
		}
		if st.InFlight > s.cfg.MaxInFlight {
			w.breaks("%s: %d Deliveries in flight, at most %d are allowed", s.name, st.InFlight, s.cfg.MaxInFlight)
		}
		waits := st.State == deliver.StateWaiting || st.State == deliver.StateBlocked
		w.ends(s, st.Status, waits)
		if (waits || st.State == deliver.StatePaused || st.State == deliver.StateStopped && st.Read > 0) && st.Reason == "" {
			w.breaks("%s is %s without a reason", s.name, st.State)
		}
	}
}

// endsWithin is how long after its time a wait may go on, on the simulated clock.
const endsWithin = 2 * time.Second

// ends checks that a wait ends when it says so (7). What a throttle or a rate holds up has another end, and so has
// what waits for an answer.
func (w *world) ends(s *subscriber, st deliver.Status, waits bool) {
	now := time.Now()
	late := st.Until.IsZero() || now.Sub(st.Until) > endsWithin
	if !waits || !late || st.InFlight > 0 || st.Low >= st.Read || s.ratio == 0 || s.cfg.Rate > 0 || w.storing(s) {
		s.waits = time.Time{}
		return
	}
	if s.waits.IsZero() {
		s.waits = now
	}
	if now.Sub(s.waits) > endsWithin {
		w.breaks("%s is %s (%s) since %s, and nothing ends it", s.name, st.State, st.Reason, s.waits.Sub(w.began))
	}
}

// storing: something of the subscription waits for the store.
func (w *world) storing(s *subscriber) bool {
	return slices.ContainsFunc(w.calls.list(), func(x *call) bool { return x.sub == s && (x.kind == callStore || x.kind == callJobs) })
}

// looksAtLog checks the log: after it was opened again it holds all that was told to anybody (5), and ranges
// tile their space at each epoch (3).
func (w *world) looksAtLog() {
	if w.p == nil {
		return
	}
	w.p.mu.Lock()
	log := w.p.opened
	w.p.opened = nil
	w.p.mu.Unlock()
	if log != nil {
		oldest, next := log.Bounds()
		if w.first == 0 {
			w.first = oldest
		}
		w.mu.Lock()
		confirmed := w.confirmed
		w.mu.Unlock()
		if last := log.Last(); last.Counter < confirmed {
			w.breaks("the source was told that %d transactions are durable, after a crash the log holds %d", confirmed, last.Counter)
		}
		for _, s := range w.subs {
			for i := range s.sent {
				if o := w.first + pipeline.Offset(i); o >= next {
					w.breaks("%s got offset %d, after a crash the log ends at %d", s.name, o, next)
				}
			}
		}
	}
	if l, err := w.p.engine.Log(sourceName); err == nil {
		if _, next := l.Bounds(); int(next-w.first) > len(w.db.history) {
			w.breaks("the log gave out offset %d, the source made %d events", next-1, len(w.db.history))
		}
		if err := w.ranges.learn(l.Ranges()); err != nil {
			w.breaks("ranges: %v", err)
		}
	}
}

// complaint says what is not done yet; empty at rest (6).
func (w *world) complaint() string {
	if w.p == nil {
		return "no process"
	}
	var all []string
	st := w.p.engine.Status()
	reads := slices.ContainsFunc(w.calls.list(), func(x *call) bool { return x.kind == callNext && !x.next.ready(w.db) })
	if !reads {
		all = append(all, fmt.Sprintf("the source is not read to its end: %+v", st.Sources))
	}
	if len(st.Subscriptions) < len(w.subs) {
		all = append(all, "not all subscriptions run")
	}
	if open := w.openJobs(); open != "" {
		all = append(all, "jobs: "+open)
	}
	end := w.first + pipeline.Offset(len(w.db.history))
	for _, s := range st.Subscriptions {
		rests := s.State == deliver.StateRunning || s.State == deliver.StateWaiting // which nothing that is sent has ended
		if !rests || s.Low != end || s.Parked+s.Open+s.Held+s.InFlight > 0 || s.Buffered != 0 || s.Persisted != end {
			all = append(all, fmt.Sprintf("%s: %+v", s.Name, s.Status))
		} else if parks := w.store.parked(s.Name); len(parks) > 0 {
			all = append(all, fmt.Sprintf("%s: on disk is parked %+v", s.Name, parks))
		}
		if r := w.sub(s.Name); r.cfg.Resolved > 0 && r.resolved != end && end > w.first {
			if w.store.cursors[s.Name].Resolved != end { // told at best
				all = append(all, fmt.Sprintf("%s: resolved is %d of %d", s.Name, w.store.cursors[s.Name].Resolved, end))
			}
		}
	}
	return strings.Join(all, "; ")
}

// checkEnd: everything was delivered or is listed, and each subscriber's tables are the source's (1, 9).
func (w *world) checkEnd() {
	for _, s := range w.subs {
		left := map[[2]int]bool{}
		for i := range w.db.history {
			e := &w.db.history[i]
			switch {
			case s.acked[i]:
			case w.excused(s, i):
				left[[2]int{e.table, e.id}] = true
				if e.pair || e.op.Barrier() {
					left[[2]int{e.table, 0}] = true
				}
			default:
				w.breaks("%s never got event %d (%v)", s.name, i, e)
				return
			}
			if l, dead := w.store.dead[s.name][w.first+pipeline.Offset(i)]; dead && s.parks() && !w.excused(s, i) && !strings.HasPrefix(l.Reason, "replay ") {
				w.breaks("%s: all was redriven, but event %d is listed as a dead letter still: %s", s.name, i, l.Reason)
				return
			}
		}
		for t := range tableNames {
			if (s.table < 0 || s.table == t) && !left[[2]int{t, 0}] {
				w.compare(s, t, left)
			}
		}
	}
}

func (w *world) compare(s *subscriber, table int, left map[[2]int]bool) {
	want, got := w.db.content(table), map[int]string{}
	truncated, ok := s.rows[[2]int{table, 0}]
	if !ok {
		truncated = -1
	}
	for row, i := range s.rows {
		if e := &w.db.history[i]; row[0] == table && row[1] > 0 && i > truncated && e.op != pipeline.OpDelete {
			got[row[1]] = e.after
		}
	}
	for id := range w.set.keys + 1 {
		if !left[[2]int{table, id}] && want[id] != got[id] {
			w.breaks("%s: row %d of %s is %q, the source's is %q", s.name, id, tableNames[table], got[id], want[id])
		}
	}
}

// checkStopped: a process that ended well left cursors at the end.
func (w *world) checkStopped() {
	end := w.first + pipeline.Offset(len(w.db.history))
	for _, s := range w.subs {
		if c := w.store.cursors[s.name]; c.Low != end || c.High != end || len(c.Pending) > 0 {
			w.breaks("%s: all was delivered up to %d, its cursor is %+v", s.name, end, c)
		}
	}
}

// rangeBook is what the log ever said of ranges.
type rangeBook struct {
	maps   map[string]map[uint64][]pipeline.Range // open ranges by space and epoch
	newest map[string]uint64
	last   uint64 // the highest id
}

func (b *rangeBook) open(space string) []pipeline.Range {
	if m := b.maps[space][b.newest[space]]; m != nil {
		return m
	}
	return []pipeline.Range{{ID: pipeline.WholeRange, Space: space}}
}

// learn takes the log's changes: each epoch of a space is said once and for ever, its ranges tile the space, ids
// are new.
func (b *rangeBook) learn(all []pipeline.RangeAt) error {
	if b.maps == nil {
		b.maps, b.newest = map[string]map[uint64][]pipeline.Range{}, map[string]uint64{}
	}
	at := map[string][]pipeline.Range{}
	seen := map[string]uint64{}
	for _, c := range all {
		open := at[c.Space]
		if len(c.Closed) == 0 {
			open = nil
		} else {
			if open == nil {
				open = []pipeline.Range{{ID: pipeline.WholeRange, Space: c.Space}}
			}
			n := len(open)
			open = slices.DeleteFunc(slices.Clone(open), func(r pipeline.Range) bool { return slices.Contains(c.Closed, r.ID) })
			if n-len(open) != len(c.Closed) {
				return fmt.Errorf("epoch %d of %q closes %v, which are not all open", c.Epoch, c.Space, c.Closed)
			}
		}
		open = append(slices.Clone(open), c.Opened...)
		slices.SortFunc(open, func(x, y pipeline.Range) int { return strings.Compare(string(x.Start), string(y.Start)) })
		if err := tiles(open); err != nil {
			return fmt.Errorf("epoch %d of %q: %w", c.Epoch, c.Space, err)
		}
		if b.maps[c.Space] == nil {
			b.maps[c.Space] = map[uint64][]pipeline.Range{}
		}
		if known := b.maps[c.Space][c.Epoch]; known != nil && !sameRanges(known, open) {
			return fmt.Errorf("epoch %d of %q was %v, is %v", c.Epoch, c.Space, known, open)
		}
		if c.Epoch > b.newest[c.Space] {
			for _, r := range c.Opened {
				if len(c.Closed) > 0 && r.ID <= b.last {
					return fmt.Errorf("epoch %d of %q gives out id %d again", c.Epoch, c.Space, r.ID)
				}
			}
			b.newest[c.Space] = c.Epoch
		}
		for _, r := range c.Opened {
			b.last = max(b.last, r.ID)
		}
		b.maps[c.Space][c.Epoch], at[c.Space], seen[c.Space] = open, open, c.Epoch
	}
	for _, space := range slices.Sorted(maps.Keys(b.newest)) {
		if seen[space] != b.newest[space] {
			return fmt.Errorf("epoch %d of %q is gone: the newest is %d", b.newest[space], space, seen[space])
		}
	}
	return nil
}

// tiles: the ranges cover all keys once.
func tiles(open []pipeline.Range) error {
	var at []byte
	for i, r := range open {
		if string(r.Start) != string(at) || i > 0 && len(at) == 0 {
			return fmt.Errorf("ranges %v leave a hole or overlap at %x", open, r.Start)
		}
		at = r.End
	}
	if len(at) > 0 {
		return fmt.Errorf("ranges %v end at %x", open, at)
	}
	return nil
}

func sameRanges(a, b []pipeline.Range) bool {
	return slices.EqualFunc(a, b, func(x, y pipeline.Range) bool {
		return x.ID == y.ID && string(x.Start) == string(y.Start) && string(x.End) == string(y.End)
	})
}
