package kafka

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// load is one Delivery on its way: a run for each partition that it has records for.
type load struct {
	s        *Sink
	p        *producer
	runs     []*run
	byLane   []*run // by lane.id; nil: none
	route    route  // of the last event
	scratch  []byte
	events   int
	copies   bool          // of what was delivered before: sent whatever is there
	whole    bool          // in transactions: nothing passes what fails
	aside    bool          // beside the stream of those
	finished chan struct{} // closed when no run is left

	mu       sync.Mutex
	open     int               // runs that are queued
	outcomes pipeline.Outcomes // nil while none failed
	failed   map[uint64]bool   // keys
}

func (s *Sink) load(p *producer, d *pipeline.Delivery) *load {
	var l *load
	select {
	case l = <-s.loads:
	default:
		l = new(load)
	}
	l.copies = d.Replay != "" || d.Reason == pipeline.ReasonReplay
	l.whole, l.aside = s.o.Whole.On, d.Aside
	l.s, l.p, l.events, l.finished, l.open, l.outcomes, l.failed, l.route = s, p, d.Events, make(chan struct{}), 0, nil, nil, route{}
	return l
}

// free gives the memory back; only of a load that finished: a broken producer's lanes may still have it.
func (l *load) free() {
	for _, r := range l.runs {
		r.lane, r.body, r.records, r.sent = nil, r.body[:0], r.records[:0], 0
		if cap(r.body) > keptBody {
			r.body = nil
		}
	}
	clear(l.byLane)
	l.p, l.route = nil, route{}
	select {
	case l.s.loads <- l:
	default:
	}
}

// mostLoads are there at once, and kept for the next Deliveries, each with at most keptBody bytes for a partition: fresh
// memory costs more than what is written to it.
const mostLoads, keptBody = 8, 16 << 20

// runOf returns the run for a lane.
func (l *load) runOf(lane *lane) *run {
	for len(l.byLane) <= lane.id {
		l.byLane = append(l.byLane, nil)
	}
	r := l.byLane[lane.id]
	if r == nil {
		i := slices.IndexFunc(l.runs, func(r *run) bool { return r.lane == nil })
		if i < 0 {
			l.runs = append(l.runs, &run{load: l})
			i = len(l.runs) - 1
		}
		r = l.runs[i]
		r.lane = lane
		l.byLane[lane.id] = r
	}
	return r
}

// queue hands the runs to their lanes.
func (l *load) queue() {
	for _, r := range l.runs {
		if len(r.records) > 0 {
			l.open++
		}
	}
	if l.open == 0 {
		close(l.finished)
		return
	}
	for _, r := range l.runs {
		if len(r.records) > 0 {
			r.lane.enqueue(r)
		}
	}
}

// done tells that a run has gone.
func (l *load) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open--; l.open == 0 {
		close(l.finished)
	}
}

// keepSettled tells the sink what Kafka acked of a load whose Delivery is not done, so comes again as a whole: next is
// behind it. No lane runs any more, and Sink.mu is held.
func (l *load) keepSettled() {
	if l.copies {
		return
	}
	for _, r := range l.runs {
		if r.lane == nil {
			continue
		}
		k := l.s.kept[r.lane.topic.name]
		for i := range r.records[:r.sent] {
			if rec := &r.records[i]; k != nil && rec.offset > 0 && !l.failedAt(rec) {
				k.known = append(k.known, rec.offset)
			}
		}
	}
}

// set notes what became of an event, and that its key failed. Called with mu held, or before the load is queued.
func (l *load) set(event int, hash uint64, o pipeline.Outcome) {
	if l.outcomes == nil {
		l.outcomes, l.failed = make(pipeline.Outcomes, l.events), map[uint64]bool{}
	}
	l.outcomes[event], l.failed[hash] = o, true
}

// refuse settles an event that Kafka does not take.
func (l *load) refuse(r *record, o pipeline.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set(int(r.event), r.hash, o)
}

// holds reports whether an earlier event of the record's key failed; then the record fails too.
func (l *load) holds(r *record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.failed[r.hash] {
		return false
	}
	l.set(int(r.event), r.hash, pipeline.Outcome{Class: pipeline.Retry, Reason: reasonSuffix})
	return true
}

// failedAt reports whether the record's event failed already.
func (l *load) failedAt(r *record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outcomes != nil && l.outcomes[r.event].Class != pipeline.OK
}

const reasonSuffix = "an earlier event of the key failed"

// pack encodes the Delivery's events that Kafka does not have yet. An error is about the Delivery as a whole: then
// nothing of it is sent.
func (l *load) pack(ctx context.Context, d *pipeline.Delivery) error {
	w := l.s.o.Encoder.Writer(ctx, d.Replay)
	defer w.Close()
	n := -1
	return d.Each(func(_ int, b *pipeline.Batch, i int, as pipeline.Op) error {
		n++
		ev := &b.Events[i]
		hash := l.hash(ev)
		if l.failed[hash] {
			l.set(n, hash, pipeline.Outcome{Class: pipeline.Retry, Reason: reasonSuffix})
			return nil
		}
		if err := l.find(ctx, b.TableOf(i)); err != nil {
			return err
		}
		if !l.copies && l.delivered(uint64(b.Offset(i))) {
			return nil
		}
		if err := l.event(w, d, n, b, i, as); err != nil {
			return l.failure(n, hash, err)
		}
		return nil
	})
}

// hash is what keeps its order: a key, of whole transactions all.
func (l *load) hash(ev *pipeline.Event) uint64 {
	if l.whole {
		return 0
	}
	return ev.Hash
}

// delivered reports whether the event is there.
func (l *load) delivered(offset uint64) bool {
	if l.aside { // what was parked or a dead letter is not, whatever came behind it
		return l.route.topic.has(offset)
	}
	return l.route.topic.delivered(offset)
}

// failure settles an event that cannot be sent; any other error is about the Delivery.
func (l *load) failure(n int, hash uint64, err error) error {
	var ee *encode.EventError
	var refused *refusal
	if errors.As(err, &ee) || errors.As(err, &refused) {
		l.set(n, hash, pipeline.Outcome{Class: pipeline.Fatal, Reason: err.Error()})
		return nil
	}
	return err
}

// find sets the route of a table's events.
func (l *load) find(ctx context.Context, t *schemas.Table) error {
	if l.route.topic != nil && l.route.table == t {
		return nil
	}
	name, err := l.s.o.Topic.name(l.s.o.Source, l.s.o.Subscription, t)
	if err != nil {
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: err.Error()}
	}
	at, err := l.p.topic(ctx, name)
	if err != nil {
		return err
	}
	l.route = route{table: t, topic: at, codec: l.s.o.Encoder.Topic(name)}
	l.route.subject = "messages"
	if t != nil {
		l.route.subject = t.Subject()
		l.route.other = !slices.Equal(t.Identity, t.Routing)
	}
	l.route.fixed = partitionOf([]byte(l.route.subject), len(at.lanes))
	return nil
}

// event appends event i of b, the n-th of the Delivery, to the run of its partition.
func (l *load) event(w *records.Writer, d *pipeline.Delivery, n int, b *pipeline.Batch, i int, as pipeline.Op) error {
	var rec records.Record
	var err error
	l.scratch, rec, err = w.Append(l.scratch[:0], l.route.codec, b, i, as)
	if err != nil {
		return err
	}
	if l.whole {
		if err := l.s.opened.wasRefused(uint64(b.Offset(i)), l.route.topic.name); err != nil {
			return err
		}
	}
	key, value := l.scratch[:max(rec.Key, 0)], l.scratch[max(rec.Key, 0):]
	ev := &b.Events[i]
	op := ev.Op
	if as != pipeline.OpNone {
		op = as
	}
	lanes := l.route.topic.lanes
	at := l.route.fixed
	switch {
	case l.route.other && ev.Key.Present() && ev.Key.Len > 0:
		at = partitionOf(b.Bytes(ev.Key), len(lanes))
	case !l.route.other && rec.Key > 0:
		at = partitionOf(key, len(lanes))
	}
	r := l.runOf(lanes[at])
	from := len(r.body)
	keyed := rec.Key >= 0
	if !keyed && l.route.topic.compact.Load() {
		key, keyed = l.s.substitute(nil, l.route.subject, op, uint64(b.Offset(i))), true
	}
	r.body = appendBytes(r.body, key, keyed)
	r.body = appendBytes(r.body, value, true)
	headers := len(r.body)
	r.body = l.s.appendHeaders(r.body, op, uint64(b.Offset(i)), d.Replay, l.whole && l.aside)
	made := record{end: uint32(len(r.body)), headers: uint32(headers), event: uint32(n), time: b.Txs[ev.Tx].Time / 1000, offset: uint64(b.Offset(i)), hash: l.hash(ev)}
	if most := l.route.topic.limit(); len(r.body)-from+batchHead+recordHead > most {
		if err := l.fits(made, r.body[from:]); err != nil {
			r.body = r.body[:from]
			return err
		}
	}
	r.records = append(r.records, made)
	if op == pipeline.OpDelete && l.s.o.Tombstones && rec.Key >= 0 {
		r.records[len(r.records)-1].joined = true
		r.body = append(appendBytes(appendBytes(r.body, key, true), nil, false), 0) // no headers
		made.headers, made.end = uint32(len(r.body)-1), uint32(len(r.body))
		r.records = append(r.records, made)
	}
	return nil
}

// fits says, by a *refusal, when the record alone makes a batch that the topic does not take.
func (l *load) fits(alone record, body []byte) error {
	t := l.route.topic
	var b batch
	b.reset(0)
	alone.headers -= alone.end - uint32(len(body))
	alone.end = uint32(len(body))
	b.add(&alone, body)
	if err := b.seal(l.s.o.Compression); err != nil {
		return &encode.EventError{Err: err}
	}
	if len(b.out) > t.limit() && (!t.renew(l.p) || len(b.out) > t.limit()) {
		return &refusal{topic: t.name, size: len(b.out), limit: t.limit()}
	}
	return nil
}

// appendHeaders appends the count and the headers of a record.
func (s *Sink) appendHeaders(dst []byte, op pipeline.Op, offset uint64, replay string, aside bool) []byte {
	count := int64(5)
	if replay != "" {
		count++
	}
	if aside {
		count++
	}
	dst = binary.AppendVarint(dst, count)
	dst = append(dst, s.heads[op]...)
	var text [20]byte
	digits := appendDecimal(text[:0], offset)
	dst = append(dst, s.idHead...)
	dst = binary.AppendVarint(dst, int64(len(s.o.Source)+1+len(digits)))
	dst = append(append(append(dst, s.o.Source...), '-'), digits...)
	dst = appendHeader(dst, headerOffset, digits)
	if replay != "" {
		dst = appendHeader(dst, headerReplay, []byte(replay))
	}
	if aside {
		dst = appendHeader(dst, headerAside, nil)
	}
	return dst
}
