package pipeline

import "time"

// Park is a key whose events are held by offset, not in memory: the one at From could not be delivered, so it
// and all later ones of the key are passed over until they are redriven or discarded.
type Park struct {
	Subscription string
	// Log that From belongs to.
	Log string
	// Space and Key are the key, encoded (see Key); Key is nil for events without one (a truncate). KeyJSON is
	// for people and may be empty.
	Space   string
	Key     []byte
	KeyJSON string
	// Hash is Event.Hash: what is held is whatever has it. A key that collides only waits along.
	Hash uint64
	// From is the first event held.
	From Offset
	// Single: nothing but the event at From is held (subscriptions without order).
	Single bool
	// Paired: the event at From is the insert half of a key change, and its delete half is held by the park of
	// PairHash.
	Paired   bool
	PairHash uint64
	Reason   string
	// Attempts that the event at From has had; 0 when it was never tried (Paired).
	Attempts int
	// Spent: they were spent, which an outage's are not; false for a refusal for good, and for Paired.
	Spent bool
	Since time.Time
	// Redrive: it is being delivered again.
	Redrive bool
	// Interval: not a key is held but, from From on, all keys of Space in [Key, Until), of which too many are parked; no
	// Until means "to the end". Hash tells it from others.
	Interval bool
	Until    []byte
	// Copied: what it holds below that has copies (Held), so that the log need not keep it. 0 = nothing has.
	Copied Offset
}

// Held is the copy of an event that a park holds, made before retention takes it from the log.
type Held struct {
	Subscription string
	Park         ParkID
	Log          string
	Offset       Offset
	// Block is a batch of the event alone, or of both halves of a key change when it is the second, in the log's
	// format (package record). The table version that it refers to is a HeldTable.
	Block []byte
}

// HeldTable is a table version that copies refer to; Shape is in the log's format.
type HeldTable struct {
	Log         string
	ID, Version uint32
	Shape       []byte
}

// ParkID tells the parks of one subscription apart: a key has one, an event of a subscription without order
// has one.
type ParkID struct {
	Hash   uint64
	Single Offset
}

// ID returns what tells the park from the others of its subscription.
func (p *Park) ID() ParkID {
	if p.Single {
		return ParkID{Hash: p.Hash, Single: p.From}
	}
	return ParkID{Hash: p.Hash}
}
