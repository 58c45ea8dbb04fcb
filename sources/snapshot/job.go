package snapshot

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// mostAgain is how many single rows of a table may wait to be read again; with more the table is read anew.
const mostAgain = 10_000

// job is a snapshot under way. The stream's mutex guards it.
type job struct {
	pipeline.SnapshotJob
	ctx    context.Context // ends with the job
	stop   context.CancelFunc
	loaded bool // tables are known
	busy   bool // somebody is at that
	ended  bool // its last mark is made
	grew   bool // there is more to be read than its last mark says
	tables []*table
	named  map[string]*table      // tables by subject
	opens  map[string]*unfinished // the stream's
	ratio  float64
	not    time.Time // before this it gets no work
	trouble
}

// table is one of a job's tables.
type table struct {
	Table
	job     *job
	subject string
	// open are the pieces that are not done, in the order of their keys; the last one may have no end.
	open []*segment
	// again are keys of rows to be read again; flying those that somebody reads.
	again    map[string]bool
	flying   map[string]bool
	turn     bool // the next window is one of a piece, if there is one
	begun    bool
	sizer    sizer
	reading  bool // of a table without a key: somebody reads it
	not      time.Time
	windows  []*window
	progress pipeline.TableProgress
	told     pipeline.TableProgress // by the last mark
	trouble
}

// segment is a piece of a table: after < key <= until.
type segment struct {
	after, until []byte
	busy         bool
}

// trouble counts what went wrong in a row.
type trouble struct{ times int }

// delay is how long to wait after one more.
func (t *trouble) delay() time.Duration {
	d := 100 * time.Millisecond << min(t.times, 9)
	t.times++
	return min(d, 30*time.Second)
}

// resume is SnapshotMark.Resume. A table that is not named is as it was when the job began.
type resume struct {
	Tables   []tableResume    `json:"tables"`
	Prepared []preparedResume `json:"prepared,omitempty"`
}

// tableResume is what is left of one table: keys are the database's.
type tableResume struct {
	Schema string      `json:"schema"`
	Name   string      `json:"name"`
	Key    []string    `json:"key,omitempty"`
	Begun  bool        `json:"begun,omitempty"`
	Open   [][2][]byte `json:"open,omitempty"`
	Again  [][]byte    `json:"again,omitempty"`
}

func (t *table) done() bool { return t.progress.Done || t.progress.Fault != "" }

// restart has all of the table read, again.
func (t *table) restart() {
	t.open, t.again = []*segment{{}}, map[string]bool{}
	t.begun, t.job.grew = false, true
	for _, w := range t.windows {
		w.void = "the table is read anew"
	}
}

// settle sees whether the table is done.
func (t *table) settle() {
	t.progress.Done = t.progress.Done || t.progress.Fault == "" && len(t.open) == 0 && len(t.again) == 0 && len(t.flying) == 0
}

// readAgain notes a row that has to be read again.
func (t *table) readAgain(key []byte) {
	if len(t.again) >= mostAgain && !t.again[string(key)] {
		t.restart()
		return
	}
	t.again[string(key)] = true
	t.job.grew = true
}

// lacks reports whether a row that comes without columns under a new key has them nowhere: all rows that were read have,
// wherever they move. old is the key that it had, nil when it is new.
func (t *table) lacks(old []byte) bool {
	return len(t.open) > 0 || old != nil && (t.again[string(old)] || t.flying[string(old)])
}

// fault ends the reading of the table.
func (t *table) fault(e *TableError) {
	t.progress.Fault, t.progress.Cure = e.What, e.Cure
	if e.Err != nil {
		t.progress.Fault += ": " + e.Err.Error()
	}
	t.open, t.again = nil, nil
}

// done reports whether nothing is left to do.
func (j *job) done() bool {
	return j.loaded && !slices.ContainsFunc(j.tables, func(t *table) bool { return !t.done() })
}

// mark says how far the job is: tables that changed since the mark before, and those that were begun.
func (j *job) mark(state pipeline.JobState, reason string) *pipeline.SnapshotMark {
	m := &pipeline.SnapshotMark{Job: j.ID, For: j.For, State: state, Reason: reason}
	if state == pipeline.JobRunning && j.done() {
		m.State, m.Reason = pipeline.JobDone, "" // what it waited for is over
	}
	var r resume
	for _, t := range j.tables {
		if t.progress != t.told {
			m.Tables, t.told = append(m.Tables, t.progress), t.progress
		}
		if t.done() || !t.begun {
			continue
		}
		tr := tableResume{Schema: t.Schema, Name: t.Name, Key: t.Key, Begun: t.begun}
		for _, s := range t.open {
			tr.Open = append(tr.Open, [2][]byte{s.after, s.until})
		}
		for _, keys := range []map[string]bool{t.again, t.flying} {
			for k := range keys {
				tr.Again = append(tr.Again, []byte(k))
			}
		}
		r.Tables = append(r.Tables, tr)
	}
	r.Prepared = j.prepared()
	if !m.State.Ended() {
		m.Resume, _ = json.Marshal(r) // strings and bytes only: cannot fail
	} else {
		j.ended = true
	}
	return m
}

// resume takes over how far the job was: what happens to its tables counts from now on.
func (j *job) resume(newTable func(Table) *table) {
	if j.Mark == nil {
		return
	}
	var r resume
	if json.Unmarshal(j.Mark.Resume, &r) != nil {
		r.Tables = nil // of no version that we know: tables are read anew
	}
	for _, p := range r.Prepared {
		j.restore(&p)
	}
	left := make(map[string]*tableResume, len(r.Tables))
	for i := range r.Tables {
		left[schemas.Subject(r.Tables[i].Schema, r.Tables[i].Name)] = &r.Tables[i]
	}
	for _, p := range j.Mark.Tables {
		t := newTable(Table{})
		t.subject, t.progress, t.told = p.Table, p, p
		if t.done() {
			t.open = nil
		}
		if tr := left[p.Table]; tr != nil {
			t.Schema, t.Name, t.Key, t.begun, t.open = tr.Schema, tr.Name, tr.Key, tr.Begun, nil
			for _, s := range tr.Open {
				t.open = append(t.open, &segment{after: s[0], until: s[1]})
			}
			for _, k := range tr.Again {
				t.again[string(k)] = true
			}
		}
		j.add(t)
	}
}

func (j *job) add(t *table) {
	if j.named == nil {
		j.named = map[string]*table{}
	}
	j.tables, j.named[t.subject] = append(j.tables, t), t
}

// load takes over the tables that the database has. One that came since the job began has all of its rows in the
// stream.
func (j *job) load(all []Table, newTable func(Table) *table) {
	j.loaded = true
	if len(j.tables) == 0 {
		for _, t := range all {
			j.add(newTable(t))
		}
	}
	places := make(map[string]int, len(all))
	for i, t := range all {
		places[schemas.Subject(t.Schema, t.Name)] = i
	}
	for _, t := range j.tables {
		if t.done() {
			continue
		}
		i, ok := places[t.subject]
		if !ok {
			t.fault(&TableError{Code: "dropped", What: "the table is not there any more, or the source does not read it any more"})
			continue
		}
		if t.begun && !slices.Equal(t.Key, all[i].Key) {
			t.restart()
		}
		t.Table, t.sizer = all[i], newTable(all[i]).sizer
		t.progress.Whole = len(t.Key) == 0
		t.progress.Estimate = max(t.progress.Estimate, t.Estimate)
	}
}
