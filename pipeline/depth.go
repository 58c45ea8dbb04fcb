package pipeline

import "time"

// Depth is how far an offset is from both ends of a log, in bytes of the log.
type Depth struct {
	// Behind is what lies between the offset and the end; Written is what was ever written, of which only
	// differences mean something.
	Behind, Written int64
	// Memory: what is next is served from the shared tail, without reading files.
	Memory bool
	// Headroom is how much can be written until the size bound removes the offset, whoever wants it: 0 = at any
	// moment. Unknown where there is no bound.
	Headroom int64
	// ToAge is how long it takes until the age bound removes the offset, if nobody holds it (Log.Floor). Unknown
	// where there is no bound.
	ToAge time.Duration
	// Gone: it was removed.
	Gone bool
}

// Keeper is the optional capability of a Log to say how long what it holds stays, and to be asked for less.
type Keeper interface {
	// Depth never blocks for long.
	Depth(o Offset) Depth
	// Doomed is the offset below which retention would remove what there is now, 0 when that is nothing; Guard says
	// that below o it may: what somebody has to copy first is copied. Before the first Guard nothing waits for
	// it; then retention does, for half a minute at most. Neither blocks.
	Doomed() Offset
	Guard(o Offset)
	// Squeeze bounds the log to the size that it has now, while on. Never blocks.
	Squeeze(on bool)
}

// Unended is what transactions that have not ended hold in a log.
type Unended struct {
	// Open ones and prepared ones, in bytes of the log; Most names the open one (Batch.Open) that holds most.
	Open, Prepared int64
	Most           string
	// Bound is what they may hold together, half of the log's bound; 0: there is none. More of them than that, and
	// retention does not get through.
	Bound int64
	// Pinned: retention would take segments that they need.
	Pinned bool
}

// Over reports whether they hold more than they may.
func (u Unended) Over() bool { return u.Bound > 0 && u.Open+u.Prepared > u.Bound }

// Holder is the optional capability of a Log to say what transactions hold that have not ended. Never blocks.
type Holder interface{ Unended() Unended }
