package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leat-cdc/leat/pipeline"
)

// lane is one partition: what Deliveries queued goes out batch by batch, one in flight, in the order in which it was
// queued.
type lane struct {
	p         *producer
	topic     *topic
	partition int
	id        int // among the producer's lanes

	mu      sync.Mutex
	queue   []*run
	running bool

	// Of the goroutine that runs.
	sequence int32
	high     uint64 // the highest offset of ours in the partition
	base     int64  // of whole transactions: next as it was when the last one was committed
	next     int64  // Kafka's offset behind the last batch that was acked, or behind the tail as it was found
	b        batch
	taken    []taken
	events   int // in the batch
}

// run is what one Delivery has for one partition.
type run struct {
	load    *load
	lane    *lane // nil: the run is free
	body    []byte
	records []record
	sent    int // records that were settled
}

// taken is a record that is settled when the batch in flight is: it is in it, or it was passed over.
type taken struct {
	run *run
	n   int
}

func (l *lane) enqueue(r *run) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, r)
	if !l.running {
		l.running = true
		l.p.wg.Go(l.drain)
	}
}

// drain sends until nothing is queued.
func (l *lane) drain() {
	most := 0    // records per batch; 0: as many as fit
	stamped := 0 // how often the batch got other times
	for l.p.ctx.Err() == nil {
		l.mu.Lock()
		if len(l.queue) == 0 {
			l.running = false
			l.mu.Unlock()
			return
		}
		queue := l.queue
		l.mu.Unlock()
		l.fill(queue, most)
		if l.events > 0 {
			err := l.b.seal(l.p.s.o.Compression)
			if err == nil {
				err = l.send()
			}
			if errors.Is(err, kafka.InvalidTimestamp) {
				if stamped++; stamped <= 2 {
					l.restamp(stamped == 2)
					continue
				}
				err = &refusal{topic: l.topic.name, err: err}
			}
			stamped = 0
			var refused *refusal
			switch {
			case errors.As(err, &refused) && l.events > 1:
				most = l.events / 2 // halves find out who is to blame
				continue
			case errors.As(err, &refused):
				l.refuse(refused)
				most = 0
			case err != nil:
				l.p.fail(err)
				return
			default:
				l.sequence, l.high = after(l.sequence, l.b.records), l.b.high
				l.settle()
			}
		} else {
			l.settle()
		}
		l.finish()
	}
}

// fill takes from the queue what goes in the next batch; records of keys that failed are passed over.
func (l *lane) fill(queue []*run, most int) {
	l.b.reset(l.high)
	l.taken, l.events = l.taken[:0], 0
	limit := l.topic.batchLimit()
	for _, r := range queue {
		for n := r.sent; n < len(r.records); n++ {
			rec := &r.records[n]
			start := uint32(0)
			if n > 0 {
				start = r.records[n-1].end
			}
			body := r.body[start:rec.end]
			joins := n > 0 && r.records[n-1].joined
			if !joins {
				if r.load.holds(rec) {
					if rec.joined {
						n++
					}
					l.taken = append(l.taken, taken{r, n})
					continue
				}
				need := len(body)
				if rec.joined && n+1 < len(r.records) {
					need = int(r.records[n+1].end - start)
				}
				if l.events > 0 && (l.b.size(need) > limit || most > 0 && l.events >= most) {
					return
				}
				l.events++
			}
			l.b.add(rec, body)
			l.taken = append(l.taken, taken{r, n})
		}
	}
}

// restamp gives the records of the batch, or those that are ahead of the clock, the time that it is: Kafka does not take
// theirs.
func (l *lane) restamp(all bool) {
	now := time.Now().UnixMilli()
	for _, t := range l.taken {
		if rec := &t.run.records[t.n]; all || rec.time > now {
			rec.time = now
		}
	}
}

// settle notes that what was taken needs nothing more.
func (l *lane) settle() {
	for _, t := range l.taken {
		t.run.sent = t.n + 1
	}
}

// refuse settles a batch of one event that Kafka will never take.
func (l *lane) refuse(why *refusal) {
	for _, t := range l.taken { // perhaps what was passed over, the event, its tombstone
		if rec := &t.run.records[t.n]; !t.run.load.failedAt(rec) {
			t.run.load.refuse(rec, pipeline.Outcome{Class: pipeline.Fatal, Reason: why.Error()})
			break
		}
	}
	l.settle()
}

// finish lets runs go of which nothing is left.
func (l *lane) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 && l.queue[0].sent == len(l.queue[0].records) {
		l.queue[0].load.done()
		l.queue[0] = nil
		l.queue = l.queue[1:]
	}
}

// requestTime bounds one request to a broker.
const requestTime = 30 * time.Second

// send sends the batch until Kafka has it. A *refusal says that it was not taken and never will be; any other error ends
// the producer, as it is not known whether it was.
func (l *lane) send() error {
	p := l.p
	id := ""
	if p.s.o.Whole.On {
		id = p.s.TransactionalID()
	}
	l.b.sign(p.id, p.epoch, l.sequence, id != "")
	size := len(l.b.out)
	wait := 20 * time.Millisecond
	for {
		ctx, cancel := context.WithTimeout(p.ctx, requestTime)
		resp, err := p.s.client.RawProduce(ctx, &kafka.RawProduceRequest{
			Topic: l.topic.name, Partition: l.partition, RequiredAcks: kafka.RequireAll, TransactionalID: id,
			RawRecords: protocol.RawRecordSet{Reader: framedReader(l.b.out)},
		})
		cancel()
		if err == nil {
			err = resp.Error
		}
		switch {
		case err == nil:
			l.next = resp.BaseOffset + int64(l.b.records)
			return nil
		case errors.Is(err, kafka.DuplicateSequenceNumber): // it is there already
			return nil
		case p.ctx.Err() != nil:
			l.b = batch{} // a request may still read it
			return p.ctx.Err()
		case errors.Is(err, kafka.MessageSizeTooLarge), errors.Is(err, kafka.RecordListTooLarge):
			if l.events == 1 {
				l.topic.learn(size)
			}
			return tooLarge(l.topic, size)
		case errors.Is(err, kafka.InvalidTimestamp):
			return kafka.InvalidTimestamp
		case errors.Is(err, kafka.InvalidRecord):
			return &refusal{topic: l.topic.name, err: err}
		case !transient(err):
			return fmt.Errorf("produce to %s: %w", l.topic.name, err)
		}
		p.s.trouble(err)
		l.b.raw, l.b.packed, l.b.out = bytes.Clone(l.b.raw), nil, bytes.Clone(l.b.out) // a request may still read them
		if !pause(p.ctx, wait) {
			return p.ctx.Err()
		}
		wait = min(2*wait, time.Second)
	}
}

// framedReader reads a record set as a request has it: its length, then the batch.
func framedReader(p []byte) *setReader {
	n := len(p)
	return &setReader{head: [4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, rest: p}
}

// setReader reads head, then rest.
type setReader struct {
	head [4]byte
	at   int
	rest []byte
}

func (r *setReader) Read(p []byte) (int, error) {
	n := 0
	if r.at < len(r.head) {
		n = copy(p, r.head[r.at:])
		r.at += n
	}
	m := copy(p[n:], r.rest)
	r.rest = r.rest[m:]
	if n += m; n == 0 && len(p) > 0 {
		return 0, errEOF
	}
	return n, nil
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
