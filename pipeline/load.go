package pipeline

import (
	"context"
	"time"
)

// Prober is the optional capability of a Source to tell how its database fares. It uses a connection of
// its own, kept between calls, and least rights: what it may not see is Unknown, with a Finding.
type Prober interface {
	// Load asks the database; a caller asks about once a second and bounds the call by ctx. An error means
	// that nothing is known, not even how much is left until loss. Not for concurrent use with Rest.
	Load(ctx context.Context) (SourceLoad, error)
	// Rest closes the connection that Load keeps; the next Load opens it again. Idempotent.
	Rest()
}

// Unknown is the value of numbers of a SourceLoad that the database does not tell, or not to us.
const Unknown = -1

// SourceLoad is how a database fares: what says "slow down" (Active, Waiting, ReplicaLag), and what says
// "read on" (Behind, Headroom, ToLoss).
type SourceLoad struct {
	// At is when it was measured, on our clock.
	At time.Time
	// Active is how many sessions are at work, those of Leat for this source left out; Waiting, how many
	// of them wait for a lock or for IO. Unknown.
	Active, Waiting int
	// ReplicaLag is that of the slowest replica that the server knows of, or of the server itself where it is
	// one. Unknown.
	ReplicaLag time.Duration
	// Behind is how many bytes of WAL or binlog the server has written behind what was read. Unknown.
	Behind int64
	// Headroom is how many bytes the server can write until it may remove what is not read yet. Unknown where
	// nothing is limited by size.
	Headroom int64
	// Rate is how many bytes of WAL or binlog the server writes per second, over the last seconds. Unknown.
	Rate float64
	// ToLoss is how long it takes, at that rate or by age, until the server may remove what is not read
	// yet: 0 = it may happen at any moment. Unknown where nothing is in danger.
	ToLoss time.Duration
	// Kept is what the server says of the slot's WAL (PostgreSQL's wal_status); empty where there is no such word.
	Kept string
	// Xmin is how many transactions the slot keeps the vacuum of the catalogue back (age of catalog_xmin). Unknown.
	Xmin int64
	// Age is how old the newest of what was read is, where the server removes by age what is older than Expiry and
	// something newer stands in files behind it. Unknown.
	Age, Expiry time.Duration
	// Lost is set when the server no longer has what was to be read next.
	Lost bool
	// Signals are the rows in force of the source's signal table.
	Signals []Signal
	// Findings are rights and settings that are missing, each with its cure.
	Findings []Finding
}

// Signal is a row of a signal table: somebody wants that less is read, Ratio 0 (nothing) to 1, until Until
// (zero: until the row is gone).
type Signal struct {
	Owner, Reason string
	Ratio         float64
	Until         time.Time
}

// NewSourceLoad returns one of which nothing is known.
func NewSourceLoad(at time.Time) SourceLoad {
	return SourceLoad{At: at, Active: Unknown, Waiting: Unknown, ReplicaLag: Unknown, Behind: Unknown, Headroom: Unknown, Rate: Unknown, ToLoss: Unknown,
		Xmin: Unknown, Age: Unknown, Expiry: Unknown}
}

// Meter makes a rate of a counter that only grows: the mean over about the last ten seconds. The zero Meter is
// ready.
type Meter struct {
	at   time.Time
	last uint64
	rate float64
	many int
}

// Add takes a reading of the counter and returns the rate per second, Unknown at the first and after the
// counter went back.
func (m *Meter) Add(at time.Time, n uint64) float64 {
	d := at.Sub(m.at).Seconds()
	switch {
	case m.many == 0 || n < m.last:
		*m = Meter{at: at, last: n, rate: Unknown, many: 1}
		return Unknown
	case d < 0.1: // too short to measure
		return m.rate
	}
	now := float64(n-m.last) / d
	if m.many == 1 {
		m.rate = now
	} else {
		m.rate += (now - m.rate) * min(d/10, 1)
	}
	m.at, m.last, m.many = at, n, 2
	return m.rate
}

// ToLoss is how long headroom bytes last at rate bytes per second; Unknown where one of them is, or
// nothing is written.
func ToLoss(headroom int64, rate float64) time.Duration {
	if headroom < 0 || rate <= 0 {
		return Unknown
	}
	const most = 100 * 365 * 24 * time.Hour
	s := float64(headroom) / rate
	if s >= most.Seconds() {
		return most
	}
	return time.Duration(s * float64(time.Second))
}
