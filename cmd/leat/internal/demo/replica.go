package demo

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// change is one event, however it came.
type change struct {
	offset uint64
	table  int // index into tables
	op     string
	key    string
	after  []string // by column, comparable; nil for a delete
	absent []bool   // by column: keep what is there; nil: none
	// other is the offset of the other half of a key change; 0: none.
	other  uint64
	commit time.Time
}

type rowKey struct {
	table int
	key   string
}

// replica is a subscriber's copy of the tables, kept by the events alone, and what it noticed meanwhile.
type replica struct {
	mu   sync.Mutex
	rows map[rowKey][]string
	last map[rowKey]uint64 // offset of the key's newest event
	// moving are rows between the delete and the insert of a key change, by the insert's offset: the
	// insert need not bring columns that did not change.
	moving map[uint64][]string

	base    uint64 // offset of bit 0 of seen
	seen    []uint64
	events  int64 // without duplicates, and without rows of the snapshot
	copied  int64 // of the rows that were there before, each once
	repeats int64
	broken  int64    // events that do not fit what came before
	wrong   []string // the first of them
	latency histogram

	// lose takes events away, for tests of the check.
	lose func(*change) bool
}

func newReplica() *replica {
	return &replica{rows: map[rowKey][]string{}, last: map[rowKey]uint64{}, moving: map[uint64][]string{}}
}

// take applies events in the order given.
func (r *replica) take(events []change) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range events {
		c := &events[i]
		if r.mark(c.offset) {
			r.repeats++ // delivered again; it was applied the first time
			continue
		}
		if r.lose != nil && r.lose(c) {
			continue
		}
		if c.op == snapshotOp {
			// Rows of the workload come with a snapshot as well, and a chunk that is read again brings some twice.
			if _, there := r.rows[rowKey{c.table, c.key}]; !there && archived(c) {
				r.copied++
			}
			r.apply(c)
			continue
		}
		r.events++
		r.latency.add(now.Sub(c.commit))
		r.apply(c)
	}
}

// mark notes that an offset was seen and tells whether it was before.
func (r *replica) mark(offset uint64) bool {
	if r.seen == nil {
		r.base = offset &^ 63
	}
	if offset < r.base { // another key's, overtaken by the very first Delivery
		n := (r.base - offset + 63) / 64
		r.seen = append(make([]uint64, n), r.seen...)
		r.base -= n * 64
	}
	at := offset - r.base
	for uint64(len(r.seen)) <= at/64 {
		r.seen = append(r.seen, 0)
	}
	bit := uint64(1) << (at % 64)
	was := r.seen[at/64]&bit != 0
	r.seen[at/64] |= bit
	return was
}

func (r *replica) apply(c *change) {
	k := rowKey{c.table, c.key}
	if c.offset < r.last[k] {
		r.complain(c, "came after event %d of the same row", r.last[k])
	}
	r.last[k] = max(c.offset, r.last[k])
	row, there := r.rows[k]
	if c.op == "delete" {
		if !there {
			r.complain(c, "deletes a row that never came")
		}
		delete(r.rows, k)
		if c.other != 0 {
			r.moving[c.other] = row
		}
		return
	}
	// A row that changed before the snapshot came to it, comes with both.
	if there != (c.op == "update") && c.op != snapshotOp {
		r.complain(c, "and the copy %s the row", map[bool]string{true: "already has", false: "lacks"}[there])
	}
	if c.other != 0 {
		row = r.moving[c.offset]
		delete(r.moving, c.offset)
	}
	after := c.after
	for i, gone := range c.absent {
		switch {
		case !gone:
		case row == nil:
			r.complain(c, "leaves out %s, and there is no value to keep", tables[c.table].columns[i].name)
		default:
			after[i] = row[i]
		}
	}
	r.rows[k] = after
}

// worst is how many complaints are kept.
const worst = 10

func (r *replica) complain(c *change, format string, args ...any) {
	r.broken++
	if len(r.wrong) < worst {
		r.wrong = append(r.wrong, fmt.Sprintf("event %d (%s of %s %s) %s", c.offset, c.op, tables[c.table].name, c.key, fmt.Sprintf(format, args...)))
	}
}

// counts of events so far: without duplicates, and the duplicates.
func (r *replica) counts() (events, repeats int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events, r.repeats
}

// copies is how many rows of the snapshot came.
func (r *replica) copies() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.copied
}

// snapshotOp is the operation of rows that were there before.
const snapshotOp = "snapshot"

// histogram of durations: 16 buckets for each doubling of a microsecond.
type histogram struct {
	buckets [64 * 16]uint64
	n       uint64
}

func (h *histogram) add(d time.Duration) {
	v := uint64(max(16, d.Microseconds()))
	e := bits.Len64(v) - 5
	h.buckets[e*16+int(v>>e)-16]++
	h.n++
}

// quantile is the upper end of the bucket in which the q-th value lies.
func (h *histogram) quantile(q float64) time.Duration {
	rank, sum := uint64(q*float64(h.n)), uint64(0)
	i := slices.IndexFunc(h.buckets[:], func(n uint64) bool { sum += n; return sum > rank })
	if i < 0 {
		return 0
	}
	return time.Duration(uint64(i%16+17)<<(i/16)) * time.Microsecond
}
