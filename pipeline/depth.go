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
