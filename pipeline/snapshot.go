package pipeline

import (
	"context"
	"encoding/json"
	"slices"
)

// Snapshotter is the optional capability of a Stream through which snapshots come: jobs and pace go in, rows come
// out of Next like any other, in batches with a SnapshotMark. Declared here so that ingest sees only a Stream;
// package sources/snapshot implements it as a decorator of the databases' streams. Safe for concurrent use; none of
// the methods waits for the database.
type Snapshotter interface {
	// Start begins or goes on with a job. Idempotent by ID. What is wrong with it (no such table, a condition that
	// does not parse) comes as a mark with JobFailed or a fault of the table, in the stream.
	Start(job SnapshotJob)
	// Stop ends a job as cancelled, with a last mark; unknown ids are ignored.
	Stop(id string)
	// Pace sets the share of the time that the job's chunks may take, from 0 (it stands still until told otherwise) to
	// 1, and why, for people, where it is below 1.
	Pace(id string, ratio float64, why string)
}

// Fencer is the optional capability of a Stream to say when it has come to now. Safe for concurrent use.
type Fencer interface {
	// Fence blocks until everything that was committed in the database before the call was handed out by Next and taken
	// (Next was called again), ErrClosed when the stream ends before. It writes into the database's log.
	Fence(ctx context.Context) error
}

// SnapshotJob asks for the existing rows of tables.
type SnapshotJob struct {
	// ID is [a-z0-9]+ and never given out again.
	ID string
	// Tables are globs over schema.table; those of the source only.
	Tables []string
	// For names the one subscription that the rows are for; empty = all.
	For string
	// Where is a condition in the database's own language, for each of Tables; empty = all rows.
	Where string
	// Mark is what the job last logged, nil for a new one: it goes on there.
	Mark *SnapshotMark
}

// keptEnds is how many marks of jobs that ended a log keeps: whoever runs the jobs learns of an end that it crashed
// before noting.
const keptEnds = 16

// FoldMarks returns the last marks of jobs, in the order in which these were first heard of, with one more: its
// tables replace those of the same name, so that a mark may name only the tables that changed. A job that ended keeps
// its tables and loses its Resume; the oldest of many that ended are forgotten. all is left as it is.
func FoldMarks(all []SnapshotMark, m SnapshotMark) []SnapshotMark {
	all = slices.Clone(all)
	i := slices.IndexFunc(all, func(o SnapshotMark) bool { return o.Job == m.Job })
	if i < 0 {
		i, all = len(all), append(all, SnapshotMark{})
	}
	m.Tables = foldTables(all[i].Tables, m.Tables)
	if m.State.Ended() {
		m.Resume = nil
	}
	all[i] = m
	ends := 0
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].State.Ended() {
			if ends++; ends > keptEnds {
				all = slices.Delete(all, i, i+1)
			}
		}
	}
	return all
}

func foldTables(was, is []TableProgress) []TableProgress {
	if len(was) == 0 {
		return is
	}
	folded := slices.Clone(was)
	var places map[string]int
	if len(is) > 8 { // else it costs more than it saves
		places = make(map[string]int, len(was))
		for i := range was {
			places[was[i].Table] = i
		}
	}
	for _, t := range is {
		i, ok := places[t.Table]
		if places == nil {
			i = slices.IndexFunc(was, func(o TableProgress) bool { return o.Table == t.Table })
			ok = i >= 0
		}
		if ok {
			folded[i] = t
		} else {
			folded = append(folded, t)
		}
	}
	return folded
}

// SnapshotMark says how far a snapshot job is with the batch that carries it: progress is a record of the log, in
// order with the rows that it counts, so a crash repeats nothing that is durable.
type SnapshotMark struct {
	Job string `json:"job"`
	// For is the job's: whom the batch's rows are for.
	For string `json:"for,omitempty"`
	// State is JobRunning, or the job's end. Reason says why it failed; of a job that runs, what it waits for.
	State  JobState `json:"state"`
	Reason string   `json:"reason,omitempty"`
	// Tables that changed since the job's mark before, or all: whoever keeps marks folds them (FoldMarks).
	Tables []TableProgress `json:"tables,omitempty"`
	// Resume is what package sources/snapshot needs to go on behind this batch.
	Resume json.RawMessage `json:"resume,omitempty"`
}

// TableProgress is how far a snapshot is with one table.
type TableProgress struct {
	// Table in Subject form.
	Table string `json:"table"`
	// Rows and Bytes that entered the log; Estimate of all rows as the database guesses it, 0 = unknown. Rows that
	// the stream overtook are counted in Overtaken.
	Rows      uint64 `json:"rows"`
	Bytes     uint64 `json:"bytes"`
	Overtaken uint64 `json:"overtaken,omitempty"`
	Estimate  uint64 `json:"estimate,omitempty"`
	Done      bool   `json:"done,omitempty"`
	// Whole: the table has no key, so that it is read at once, in one consistent read.
	Whole bool `json:"whole,omitempty"`
	// Fault is why the table could not be read (and is not any more), with its cure.
	Fault string `json:"fault,omitempty"`
	Cure  string `json:"cure,omitempty"`
}

// Watermark is a place in the stream that a snapshot wrote into the source's own log: it stands before
// Events[Event] of its batch (len(Events): behind the last).
type Watermark struct {
	ID    string
	Event uint32
	// Position of its transaction, as Tx.Position has it; empty = unknown.
	Position string
}
