package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/pipeline"
)

// producer is one identity at Kafka: a producer id and epoch with a sequence per partition. It ends with the first
// batch of which it is not known whether it was taken; the next one fences it and finds out, from the tails of the
// partitions.
type producer struct {
	s      *Sink
	id     int64
	epoch  int16
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // lanes that run

	failing sync.Once
	err     error         // set before broken is closed
	broken  chan struct{} // closed when it ends
	told    atomic.Bool   // a Delivery had err as its end

	cursor pipeline.Cursor
	kept   map[string]*kept // as earlier producers left it; read only

	loadsMu sync.Mutex
	loads   map[*load]struct{} // of Deliveries that did not return yet, or not with their outcomes

	// Of who has Sink.turn: when the transaction that is open began, microseconds since 1970, 0: none is; what is in it.
	begun atomic.Int64
	in    map[*lane]bool

	mu     sync.Mutex // held while a topic is attached
	topics atomic.Pointer[map[string]*topic]
	lanes  atomic.Int32
}

// topic is one topic with what its partitions' tails tell.
type topic struct {
	name  string
	lanes []*lane
	// known are offsets that were delivered already, sorted.
	known []uint64
	// done: all that was delivered in whole transactions up to that offset is there.
	done uint64
	// maxBatch is how large a batch may be: 0 while that is not known. whole is what is put together at most.
	maxBatch atomic.Int64
	compact  atomic.Bool  // it takes no null keys
	asked    atomic.Int64 // when its settings were asked for; nanoseconds since 1970
}

// defaultMaxBatch is Kafka's default of max.message.bytes.
const defaultMaxBatch = 1048588

func (t *topic) limit() int {
	if n := t.maxBatch.Load(); n > 0 {
		return int(n)
	}
	return defaultMaxBatch
}

// wholeBatch is how many bytes are put together in a batch.
const wholeBatch = 1 << 20

func (t *topic) batchLimit() int { return min(t.limit(), wholeBatch) }

// learn notes that a batch of one record was refused for its size.
func (t *topic) learn(size int) {
	if size <= t.limit() {
		t.maxBatch.Store(int64(size - 1))
	}
}

// delivered reports whether the event is there, by the partitions' tails or by the order of whole transactions.
func (t *topic) delivered(offset uint64) bool { return offset <= t.done || t.has(offset) }

// has reports whether the partitions' tails have the event.
func (t *topic) has(offset uint64) bool {
	if n := len(t.known); n == 0 || offset > t.known[n-1] {
		return false
	}
	_, found := slices.BinarySearch(t.known, offset)
	return found
}

// openTime bounds what a producer does before it can send.
const openTime = 30 * time.Second

// newProducer takes over the transactional id: who had it before can send nothing more to partitions that the new one
// has attached. Called with s.mu held.
func (s *Sink) newProducer(ctx context.Context) (*producer, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)() // Close waits for s.mu
	p := &producer{s: s, cursor: s.cursor, kept: maps.Clone(s.kept), broken: make(chan struct{}), loads: map[*load]struct{}{}}
	p.topics.Store(&map[string]*topic{})
	err := s.patiently(ctx, func() error {
		resp, err := s.client.InitProducerID(ctx, &kafka.InitProducerIDRequest{TransactionalID: s.TransactionalID(), TransactionTimeoutMs: s.transactionTimeout(), ProducerID: -1, ProducerEpoch: -1})
		if err == nil {
			err = resp.Error
		}
		if err == nil {
			p.id, p.epoch = int64(resp.Producer.ProducerID), int16(resp.Producer.ProducerEpoch)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get a producer id: %w", err)
	}
	p.ctx, p.cancel = context.WithCancel(s.ctx)
	return p, nil
}

// patiently calls f until it succeeds, fails for good, or ctx ends: then with what went wrong last. Connections
// that fail are no matter of patience: the caller waits by the retry policy.
func (s *Sink) patiently(ctx context.Context, f func() error) error {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := f()
		var code kafka.Error
		if err == nil || !errors.As(err, &code) || !transient(err) {
			return err
		}
		if !pause(ctx, wait) {
			return err
		}
	}
}

// fail ends the producer; err nil: it was closed.
func (p *producer) fail(err error) {
	p.failing.Do(func() {
		p.err = p.aged(p.s.fenced(err))
		p.cancel()
		close(p.broken)
	})
}

// kept is what is known of a topic while no producer has it attached.
type kept struct {
	// next is Kafka's offset, by partition, behind what was acked; high the highest offset of ours.
	next  []int64
	high  []uint64
	known []uint64
	done  uint64
}

// end ends the producer and waits for what it runs; what it knows of its topics goes to the sink. Called with
// Sink.mu held.
func (p *producer) end() {
	p.fail(context.Canceled)
	p.wg.Wait()
	for name, t := range *p.topics.Load() {
		k := &kept{known: t.known, done: t.done}
		for _, l := range t.lanes {
			next := l.next
			if p.s.o.Whole.On {
				next = l.base // whether what follows was committed is seen there
			}
			k.next, k.high = append(k.next, next), append(k.high, l.high)
		}
		p.s.kept[name] = k
	}
	if p.s.o.Whole.On {
		return
	}
	p.loadsMu.Lock()
	defer p.loadsMu.Unlock()
	for l := range p.loads {
		l.keepSettled()
	}
}

// begin and done frame the time in which it is not known whether a load comes again.
func (p *producer) begin(l *load) {
	p.loadsMu.Lock()
	defer p.loadsMu.Unlock()
	p.loads[l] = struct{}{}
}

func (p *producer) done(l *load) {
	p.loadsMu.Lock()
	defer p.loadsMu.Unlock()
	delete(p.loads, l)
}

// topic returns the topic of that name, attached at first use.
func (p *producer) topic(ctx context.Context, name string) (*topic, error) {
	if t := (*p.topics.Load())[name]; t != nil {
		return t, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := (*p.topics.Load())[name]; t != nil {
		return t, nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	t, err := p.attach(ctx, name)
	if err != nil {
		return nil, err
	}
	topics := maps.Clone(*p.topics.Load())
	topics[name] = t
	p.topics.Store(&topics)
	return t, nil
}

// attach makes sure that the topic is there and nobody else's, and reads its tails.
func (p *producer) attach(ctx context.Context, name string) (*topic, error) {
	partitions, err := p.s.ensure(ctx, name)
	if err != nil {
		return nil, err
	}
	t := &topic{name: name}
	t.settings(ctx, p.s)
	if err := p.fence(ctx, name, partitions); err != nil {
		if fenced, code := (*FencedError)(nil), kafka.Error(0); !errors.As(err, &fenced) && (!errors.As(err, &code) || transient(err)) {
			// A transaction of ours may be open: when Kafka ends it for its age, that looks as if another had taken over.
			p.fail(err)
		}
		return nil, err
	}
	before := p.kept[name]
	if before == nil {
		before = &kept{}
	}
	t.known, t.done = slices.Clone(before.known), before.done
	for i := range partitions {
		from, high := int64(-1), uint64(0)
		if i < len(before.next) {
			from, high = before.next[i], before.high[i]
		}
		var seen *tail
		var end int64
		err := p.s.patiently(ctx, func() (err error) {
			seen, end, err = p.readTail(ctx, name, i, from)
			return err
		})
		if err != nil {
			return nil, err
		}
		t.known, t.done = append(t.known, seen.offsets...), max(t.done, seen.done)
		t.lanes = append(t.lanes, &lane{p: p, topic: t, partition: i, id: int(p.lanes.Add(1)) - 1, high: max(seen.high, high), next: end, base: end})
	}
	p.dropWalks(name, partitions)
	slices.Sort(t.known)
	t.known = slices.Clip(slices.Compact(t.known))
	return t, nil
}

// fence puts a marker of ours in each partition of the topic: an aborted transaction without records. Behind it the
// partition's leader refuses batches of earlier epochs; a producer id alone would not be known there.
func (p *producer) fence(ctx context.Context, name string, partitions int) error {
	if p.begun.Load() != 0 { // within a transaction its end is the marker, and no other may come before
		return nil
	}
	all := make([]kafka.AddPartitionToTxn, partitions)
	for i := range all {
		all[i].Partition = i
	}
	err := p.add(ctx, map[string][]kafka.AddPartitionToTxn{name: all})
	// The second time it says that the markers are written: until then the transaction is still being ended.
	for range 2 {
		if err != nil {
			break
		}
		err = p.endTxn(ctx, false)
	}
	if err != nil {
		return fmt.Errorf("fence %s: %w", name, p.s.fenced(err))
	}
	return nil
}

// add adds partitions to the transaction.
func (p *producer) add(ctx context.Context, all map[string][]kafka.AddPartitionToTxn) error {
	return p.s.patiently(ctx, func() error {
		resp, err := p.s.client.AddPartitionsToTxn(ctx, &kafka.AddPartitionsToTxnRequest{TransactionalID: p.s.TransactionalID(), ProducerID: int(p.id), ProducerEpoch: int(p.epoch), Topics: all})
		if err != nil {
			return err
		}
		for name := range all {
			for _, r := range resp.Topics[name] {
				err = errors.Join(err, r.Error)
			}
		}
		return err
	})
}

// endTxn ends the transaction.
func (p *producer) endTxn(ctx context.Context, commit bool) error {
	return p.s.patiently(ctx, func() error {
		resp, err := p.s.client.EndTxn(ctx, &kafka.EndTxnRequest{TransactionalID: p.s.TransactionalID(), ProducerID: int(p.id), ProducerEpoch: int(p.epoch), Committed: commit})
		if err == nil {
			err = resp.Error
		}
		return err
	})
}

// transactionTimeout is how long Kafka leaves a transaction open; milliseconds.
func (s *Sink) transactionTimeout() int {
	if s.o.Whole.On {
		return int(s.o.Whole.Timeout.Milliseconds())
	}
	return 60_000
}

// fenced names who is to blame when Kafka says that the producer is not the newest of its transactional id.
func (s *Sink) fenced(err error) error {
	if errors.Is(err, kafka.ProducerFenced) || errors.Is(err, kafka.InvalidProducerEpoch) {
		return &FencedError{s.TransactionalID()}
	}
	return err
}
