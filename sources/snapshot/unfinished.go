package snapshot

import (
	"maps"
	"slices"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Transactions that travel in chunks are seen with their commit: what they do to rows is kept until then. One that was
// prepared (XA) may commit when the stream, or the process, is another: streams hand over what they know of it, and
// marks hold it.

const (
	// mostOpen is how many rows are kept of all open transactions together.
	mostOpen = 500_000
	// mostPrepared is how many rows of prepared transactions a mark holds, and how many of them to be read again.
	mostPrepared = 1_000
)

const (
	whyLarge   = "a large transaction changed the table"
	whyUnknown = "a transaction committed that was prepared long ago"
)

// unfinished is what an open transaction does to tables, by subject.
type unfinished struct {
	tables   map[string]*doings
	prepared bool
	// told, when it is known by marks only: the jobs whose marks told what it does to their tables.
	told map[string]bool
}

// doings is what an open transaction does to the rows of a table.
type doings struct {
	rows map[string]byte // by identity: touchedWhole, touchedPartial
	// again are keys of rows that lack columns which no event of the key brought before, with the keys that they had;
	// nil of new ones.
	again map[string][]byte
	shape *schemas.Table
	// unknown: which rows is not kept, because of this; restart: nor which of them are to be read again.
	unknown string
	restart bool
}

func newUnfinished() *unfinished { return &unfinished{tables: map[string]*doings{}} }

func (u *unfinished) of(subject string) *doings {
	d := u.tables[subject]
	if d == nil {
		d = &doings{rows: map[string]byte{}, again: map[string][]byte{}}
		u.tables[subject] = d
	}
	return d
}

// forget gives up on which rows there are.
func (d *doings) forget(why string) { d.unknown, d.rows = why, nil }

// anything adds to what is known of a transaction that it may have changed any row of the jobs that were not told.
// The mutex is held.
func (s *stream) anything(u *unfinished) {
	for _, j := range s.jobs {
		if u.told[j.ID] {
			continue
		}
		for _, t := range j.tables {
			d := u.of(t.subject)
			d.forget(whyUnknown)
			d.restart = true
		}
	}
}

// kept is how many rows are kept of open transactions. The mutex is held.
func (s *stream) kept() (n int) {
	for _, u := range s.opens {
		for _, d := range u.tables {
			n += len(d.rows)
		}
	}
	return n
}

// recordChunk notes what an open transaction does. The mutex is held.
func (s *stream) recordChunk(b *pipeline.Batch) {
	u := s.opens[b.Open]
	if u == nil || u.prepared { // it comes once more, or another has its name
		u = newUnfinished()
		s.opens[b.Open] = u
	}
	room := mostOpen - s.kept()
	for n, t := range b.Tables {
		d := u.of(t.Subject())
		if d.shape != nil && !sameShape(d.shape, t) {
			d.forget(happened[pipeline.OpSchema])
		}
		d.shape = t
		for i := range b.Events {
			if e := &b.Events[i]; e.Table == uint16(n) && !(d.unknown != "" && d.restart) {
				s.recordDoing(b, e, t, d)
			}
		}
		if len(d.rows) > min(mostTouched, room) {
			d.forget(whyLarge)
		}
	}
}

func (s *stream) recordDoing(b *pipeline.Batch, e *pipeline.Event, t *schemas.Table, d *doings) {
	if !e.Op.Row() {
		d.forget(happened[e.Op])
		return
	}
	c, ok := s.images.event(b, e, t)
	if !ok {
		d.forget("a row that cannot be told apart changed")
		d.restart = len(t.Identity) > 0
		return
	}
	if c.partial && c.base && !d.restart {
		if key, old, err := s.keys(t, &c); err == nil && len(d.again) < mostAgain {
			d.again[string(key)] = old
		} else {
			d.restart, d.again = true, map[string][]byte{}
		}
	}
	if d.unknown == "" {
		c.into(d.rows)
	}
}

// into notes a change among the rows that changed.
func (c *change) into(rows map[string]byte) {
	how := byte(touchedWhole)
	if c.partial {
		how = touchedPartial
	}
	rows[string(c.key)] |= how
	if c.old != nil {
		rows[string(c.old)] |= touchedWhole
	}
}

// recordPrepared notes that a transaction waits for its commit, and has jobs that read its tables remember it before.
// The mutex is held.
func (s *stream) recordPrepared(b *pipeline.Batch) {
	u := s.opens[b.Open]
	if u == nil {
		return
	}
	u.prepared = true
	for _, j := range s.jobs {
		j.grew = true // also where it touches nothing of the job: else it would be taken for one that may touch all
	}
}

// recordCommit does to what is being read what an open transaction did. The mutex is held.
func (s *stream) recordCommit(b *pipeline.Batch) {
	u := s.opens[b.Open]
	s.over = append(s.over, b.Open)
	if !s.busy.Load() {
		return
	}
	if u == nil { // its chunks were prepared before this process began
		u = newUnfinished()
		u.told = map[string]bool{}
	}
	if u.told != nil {
		s.anything(u)
	}
	s.history.add(b, slices.Collect(maps.Keys(u.tables)))
	s.bound()
	for subject, d := range u.tables {
		for _, tb := range s.tables(subject) {
			tb.did(d)
		}
	}
}

// did does to a table that is being read what a transaction did to it.
func (t *table) did(d *doings) {
	if t.progress.Whole { // its place is found by whole transactions
		return
	}
	if d.restart {
		t.restart()
	}
	lack := false // they may have moved more than once
	for _, old := range d.again {
		lack = lack || t.lacks(old)
	}
	for key := range d.again {
		if lack && !d.restart {
			t.readAgain([]byte(key))
		}
	}
	if d.unknown != "" {
		t.voidWindows(d.unknown)
		return
	}
	for _, w := range t.windows {
		w.touchAll(d)
	}
}

// preparedResume is what a mark says of a prepared transaction.
type preparedResume struct {
	Open   string         `json:"open"`
	Tables []doingsResume `json:"tables"`
}

// doingsResume is what a prepared transaction does to a table: rows by identity, again by key.
type doingsResume struct {
	Table   string   `json:"table"`
	Whole   [][]byte `json:"whole,omitempty"`
	Partial [][]byte `json:"partial,omitempty"`
	// Again: key and the key before, in pairs.
	Again   [][2][]byte `json:"again,omitempty"`
	Unknown string      `json:"unknown,omitempty"`
	Restart bool        `json:"restart,omitempty"`
}

// prepared returns what the job has to know of prepared transactions when it goes on elsewhere. Of tables that it does
// not know yet it cannot tell anything: its mark names none, so that they may have changed any row.
func (j *job) prepared() (all []preparedResume) {
	if !j.loaded && len(j.tables) == 0 {
		return nil
	}
	rows, again := 0, 0
	for open, u := range j.opens {
		if !u.prepared || u.told != nil && !u.told[j.ID] {
			continue
		}
		p := preparedResume{Open: open}
		for subject, d := range u.tables {
			if t := j.named[subject]; t == nil || t.done() {
				continue
			}
			r := doingsResume{Table: subject, Unknown: d.unknown, Restart: d.restart}
			if rows += len(d.rows); rows > mostPrepared && r.Unknown == "" {
				r.Unknown = whyLarge
			}
			if again += len(d.again); again > mostPrepared && len(d.again) > 0 {
				r.Restart = true
			}
			if r.Unknown == "" {
				for k, how := range d.rows {
					if how&touchedWhole != 0 {
						r.Whole = append(r.Whole, []byte(k))
					}
					if how&touchedPartial != 0 {
						r.Partial = append(r.Partial, []byte(k))
					}
				}
			}
			if !r.Restart {
				for k, old := range d.again {
					r.Again = append(r.Again, [2][]byte{[]byte(k), old})
				}
			}
			p.Tables = append(p.Tables, r)
		}
		all = append(all, p)
	}
	return all
}

// restore adds what the job's mark says to what is known.
func (j *job) restore(p *preparedResume) {
	u := j.opens[p.Open]
	if u == nil {
		u = newUnfinished()
		u.prepared, u.told = true, map[string]bool{}
		j.opens[p.Open] = u
	}
	if u.told == nil {
		return // all is known
	}
	u.told[j.ID] = true
	for _, r := range p.Tables {
		d := u.of(r.Table)
		if d.unknown == "" && r.Unknown != "" {
			d.forget(r.Unknown)
		}
		for _, k := range r.Again {
			d.again[string(k[0])] = k[1]
		}
		d.restart = d.restart || r.Restart
		if d.unknown != "" {
			continue
		}
		for _, k := range r.Whole {
			d.rows[string(k)] |= touchedWhole
		}
		for _, k := range r.Partial {
			d.rows[string(k)] |= touchedPartial
		}
	}
}

// forget forgets the transactions that ended: whatever was handed out is taken.
func (s *stream) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, open := range s.over {
		delete(s.opens, open)
	}
	s.over = nil
}

// prepared returns the transactions that outlive the stream, for the next one. The mutex is held.
func (s *stream) prepared() map[string]*unfinished {
	maps.DeleteFunc(s.opens, func(_ string, u *unfinished) bool { return !u.prepared })
	return s.opens
}
