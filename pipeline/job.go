package pipeline

import "time"

// JobKind says how a replay comes to its subscriber.
type JobKind string

const (
	// JobAside: tagged copies of the window, beside the live events, whose cursor it never moves.
	JobAside JobKind = "aside"
	// JobFenced: tagged copies up to the live reading while the live events of the same keys are held; these
	// come behind the copies. For subscribers that cannot tell copies apart.
	JobFenced JobKind = "fenced"
	// JobRewind: the keys are taken back to an offset: from there on all of their events are delivered again, in
	// order, and on into live.
	JobRewind JobKind = "rewind"
)

// JobState is where a job is. Those from JobDone on are ends.
type JobState string

const (
	JobRunning JobState = "running"
	// JobWaiting: it goes on by itself; Reason says when.
	JobWaiting JobState = "waiting"
	// JobPaused: until a person resumes it.
	JobPaused    JobState = "paused"
	JobDone      JobState = "done"
	JobCancelled JobState = "cancelled"
	JobFailed    JobState = "failed"
)

// Ended reports whether the job is over.
func (s JobState) Ended() bool { return s == JobDone || s == JobCancelled || s == JobFailed }

// KeyInterval is [Start, End) of a key space, in encoded keys; a nil End means "to the end".
type KeyInterval struct {
	Space string `json:"space"`
	Start []byte `json:"start,omitempty"`
	End   []byte `json:"end,omitempty"`
}

// Scope is what of a window is meant: what is in one of Tables (globs; none: all), of one of Keys or Ranges
// (neither: all) and passes Filter (CEL; empty: all).
type Scope struct {
	Tables []string      `json:"tables,omitempty"`
	Keys   []Key         `json:"keys,omitempty"`
	Ranges []KeyInterval `json:"ranges,omitempty"`
	Filter string        `json:"filter,omitempty"`
}

// ByKey reports whether the scope names keys.
func (s *Scope) ByKey() bool { return len(s.Keys)+len(s.Ranges) > 0 }

// Job is a replay of a part of the log to one subscription.
type Job struct {
	// ID is [a-z0-9]+ and never given out again: it stands in webhook-ids.
	ID, Subscription, Source string
	// Log that the offsets belong to.
	Log  string
	Kind JobKind
	// Window is [From, To). Of a rewind or fenced replay To is where the live reading stood when it began.
	From, To Offset
	Scope    Scope
	State    JobState
	// Reason why it waits, was paused or failed; for people.
	Reason string
	// At: all of the window below was delivered. Pending, of an aside: what of [At, High) was not.
	At, High Offset
	Pending  []OffsetRange
	// Live, of a rewind or fenced replay: below it the live session had given out all events of the keys when they
	// began to be held; zero before that.
	Live Offset
	// Stop, when not zero: it was cancelled when it had come so far; keys that it had taken back by then are
	// brought up to live, no others.
	Stop Offset
	// Done of Total events, those given up on (Dead) included; Total is what the dry run counted. Bytes as counted
	// there.
	Done, Total, Dead, Bytes uint64
	// Created when and by whom; Ended is zero until then.
	Created, Ended time.Time
	Owner          string
}

// JobSnapshot is the kind of a Snapshot where it stands among jobs: it reads the rows that are there.
const JobSnapshot JobKind = "snapshot"

// SnapshotCause says why a snapshot was made.
type SnapshotCause string

const (
	// CauseInitial: the source was new; the rows are for all.
	CauseInitial SnapshotCause = "initial"
	// CauseNew: the subscription was new, and begins with one.
	CauseNew SnapshotCause = "new"
	// CauseLaggard: retention had removed what the subscription had not read.
	CauseLaggard SnapshotCause = "laggard"
	// CauseBackfill: a person asked for it.
	CauseBackfill SnapshotCause = "backfill"
)

// Snapshot is a job that brings the rows that are there into the log.
type Snapshot struct {
	// ID is [a-z0-9]+ and never given out again, to no replay either.
	ID, Source string
	// Log that the rows go to.
	Log string
	// For is the one subscription that they are for; empty: all.
	For   string
	Cause SnapshotCause
	// Tables are globs over schema.table; Where is a condition in the database's own language, empty = all rows.
	Tables []string
	Where  string
	// After: the job's rows stand at or above this offset.
	After  Offset
	State  JobState
	Reason string
	// Progress, as of the last mark that was durable.
	Progress       []TableProgress
	Created, Ended time.Time
	Owner          string
}

// Rows returns how many rows entered the log and how many there are about; total 0: that is not known of each table.
func (s *Snapshot) Rows() (done, total uint64) {
	known := true
	for _, t := range s.Progress {
		done += t.Rows + t.Overtaken
		switch {
		case t.Done || t.Fault != "":
			total += t.Rows + t.Overtaken
		case t.Estimate == 0:
			known = false
		default:
			total += max(t.Estimate, t.Rows+t.Overtaken)
		}
	}
	if !known {
		total = 0
	}
	return done, total
}

// Bytes that entered the log.
func (s *Snapshot) Bytes() (n uint64) {
	for _, t := range s.Progress {
		n += t.Bytes
	}
	return n
}
