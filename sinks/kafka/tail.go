package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/leat-cdc/leat/pipeline"
)

// tail is what the end of a partition tells of what was delivered.
type tail struct {
	producer string // whose records count
	cursor   pipeline.Cursor
	offsets  []uint64 // of ours, in Leat's log
	high     uint64
	// reaches: far enough back that nothing before it can be delivered again.
	reaches bool
	within  int // records of ours of batches below the cursor's High
	// done: of whole transactions all up to that offset is there.
	done uint64
	transactions
}

// inFlight is how many records may have been on their way to one partition when a cursor was saved: beyond so many of
// batches below the cursor's High nothing of its pending ranges can stand.
const inFlight = 1 << 18

// batchSeen takes a batch whose first record told high. Batches of one window come in order, windows back to front.
func (t *tail) batchSeen(offsets []uint64, high uint64) {
	t.offsets = append(t.offsets, offsets...)
	t.high = max(t.high, high)
	if high < uint64(t.cursor.Low) {
		t.reaches = true
	}
	if high < uint64(t.cursor.High) {
		if t.within += len(offsets); t.within > inFlight {
			t.reaches = true
		}
	}
}

// read takes one batch and returns the offset behind its last record.
func (t *tail) read(r *protocol.RecordBatch) (next int64, err error) {
	var offsets []uint64
	var high, done uint64
	found := false
	for {
		rec, err := r.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return next, err
		}
		next = max(next, rec.Offset+1)
		o, h, ours := t.record(rec.Headers)
		closeBytes(rec.Key, rec.Value)
		if ours {
			high, found = max(high, h, o), true
			if o > 0 && !isCopy(rec.Headers) { // the event of a copy may still be on its way
				offsets = append(offsets, o)
				if !has(rec.Headers, headerAside) {
					done = max(done, o)
				}
			}
		}
	}
	switch {
	case found && r.Attributes.Transactional():
		t.put(r.ProducerID, txBatch{offsets, high, done})
	case found:
		t.batchSeen(offsets, high)
	}
	return next, nil
}

func closeBytes(all ...protocol.Bytes) {
	for _, b := range all {
		if b != nil {
			_ = b.Close() // memory only
		}
	}
}

func isCopy(headers []protocol.Header) bool { return has(headers, headerReplay) }

func has(headers []protocol.Header, name string) bool {
	return slices.ContainsFunc(headers, func(h protocol.Header) bool { return h.Key == name })
}

// record reads the headers of one record.
func (t *tail) record(headers []protocol.Header) (offset, high uint64, ours bool) {
	for _, h := range headers {
		switch h.Key {
		case headerProducer:
			ours = string(h.Value) == t.producer
		case headerOffset:
			n, ok := parseOffset(h.Value)
			if !ok {
				return 0, 0, false
			}
			offset = n
		case headerHigh:
			high, _ = parseOffset(h.Value)
		}
	}
	return offset, high, ours
}

// A walk looks at firstWindow records of a partition, then at windows that grow up to mostWindow: each that was read
// counts, also when the time is up. Of a cursor that never got anything delivered farthest are enough.
const (
	firstWindow = 1000
	mostWindow  = 1 << 16
	farthest    = 4 * inFlight
)

// walk is how far back from the end of a partition was looked.
type walk struct {
	tail           tail
	at, begun, end int64 // [at, end) was read; begun is where the end was at first
	window         int64
}

// walkOf goes on with the walk of that partition, or begins one at end.
func (p *producer) walkOf(place string, end int64) walk {
	p.s.walksMu.Lock()
	defer p.s.walksMu.Unlock()
	w, ok := p.s.walks[place]
	if c := w.tail.cursor; ok && w.end <= end && w.tail.producer == p.s.TransactionalID() && c.Log == p.cursor.Log && c.Low == p.cursor.Low && c.High == p.cursor.High {
		return w
	}
	w = walk{at: end, begun: end, end: end, window: firstWindow, tail: tail{producer: p.s.TransactionalID(), cursor: p.cursor}}
	w.tail.reaches = p.cursor.Low == 0 // nobody has said where deliveries go on: the first window has to do
	return w
}

func (p *producer) keepWalk(place string, w walk) {
	p.s.walksMu.Lock()
	defer p.s.walksMu.Unlock()
	p.s.walks[place] = w
}

func (p *producer) dropWalks(topicName string, partitions int) {
	p.s.walksMu.Lock()
	defer p.s.walksMu.Unlock()
	for i := range partitions {
		delete(p.s.walks, placeOf(topicName, i))
	}
}

func placeOf(topicName string, partition int) string {
	return topicName + "/" + strconv.Itoa(partition)
}

// far reports whether nothing farther back matters.
func (w *walk) far(first int64) bool {
	return w.at <= first || w.at < w.begun && (w.tail.reaches || w.tail.cursor.Worked.IsZero() && w.begun-w.at >= farthest)
}

// readTail walks back from the end of a partition as far as the cursor asks, or from the offset `from` on when that is
// known. end is Kafka's offset behind the last record.
func (p *producer) readTail(ctx context.Context, topicName string, partition int, from int64) (t *tail, end int64, err error) {
	first, end, err := p.bounds(ctx, topicName, partition)
	if err != nil {
		return nil, 0, err
	}
	if from >= 0 && from <= end { // else the topic is another
		t = &tail{producer: p.s.TransactionalID(), cursor: p.cursor}
		err := p.readWindow(ctx, t, topicName, partition, max(from, first), end)
		t.decide(true)
		return t, end, err
	}
	place := placeOf(topicName, partition)
	w := p.walkOf(place, end)
	read := func(from, to int64) error {
		seen := w.tail
		seen.begin()
		seen.offsets = slices.Clip(seen.offsets) // a window counts as a whole
		err := p.readWindow(ctx, &seen, topicName, partition, from, to)
		if err != nil {
			p.s.trouble(fmt.Errorf("looking in %s for what was delivered: %d records of %d so far, goes on from there", place, w.begun-w.at, w.begun-first))
			return err
		}
		seen.decide(from >= w.end)
		w.tail, w.at, w.end = seen, min(w.at, from), max(w.end, to)
		p.keepWalk(place, w)
		return nil
	}
	if err := read(max(first, w.end), end); err != nil { // what has come since
		return nil, 0, err
	}
	for !w.far(first) {
		if err := read(max(first, w.at-w.window), w.at); err != nil {
			return nil, 0, err
		}
		w.window = min(8*w.window, mostWindow)
	}
	return &w.tail, end, nil
}

// readWindow takes the batches of [from, to).
func (p *producer) readWindow(ctx context.Context, t *tail, topicName string, partition int, from, to int64) error {
	for from < to {
		ctx, cancel := context.WithTimeout(ctx, requestTime)
		resp, err := p.s.client.Fetch(ctx, &kafka.FetchRequest{Topic: topicName, Partition: partition, Offset: from, MinBytes: 1, MaxBytes: 8 << 20,
			MaxWait: 500 * time.Millisecond, IsolationLevel: kafka.ReadUncommitted})
		if err == nil {
			err = resp.Error
		}
		if err != nil {
			cancel()
			return fmt.Errorf("read the tail of %s/%d: %w", topicName, partition, err)
		}
		next, err := t.batches(resp.Records, to)
		cancel()
		if err != nil {
			return fmt.Errorf("read the tail of %s/%d: %w", topicName, partition, err)
		}
		if next <= from { // nothing there but what compaction or a marker left
			if from++; resp.HighWatermark <= from {
				return nil
			}
			continue
		}
		from = next
	}
	return nil
}

// batches takes what one fetch brought before the offset to, batches as a whole, and returns where the next one goes on.
func (t *tail) batches(records protocol.RecordReader, to int64) (next int64, err error) {
	stream, ok := records.(*protocol.RecordStream)
	if !ok {
		return 0, nil
	}
	for _, r := range stream.Records {
		switch b := r.(type) {
		case *protocol.ControlBatch:
			if err := t.marker(b); err != nil {
				return 0, err
			}
			next = max(next, b.BaseOffset+1)
		case *protocol.RecordBatch:
			if b.BaseOffset >= to { // the window behind has it
				return max(next, to), nil
			}
			n, err := t.read(b)
			if err != nil {
				return 0, err
			}
			next = max(next, b.BaseOffset+1, n)
		}
	}
	return next, nil
}

// bounds returns a partition's first offset and the one behind its last.
func (p *producer) bounds(ctx context.Context, topicName string, partition int) (first, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	resp, err := p.s.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		topicName: {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
	}})
	if err != nil {
		return 0, 0, fmt.Errorf("find the end of %s/%d: %w", topicName, partition, err)
	}
	for _, o := range resp.Topics[topicName] {
		if o.Error != nil {
			return 0, 0, fmt.Errorf("find the end of %s/%d: %w", topicName, partition, o.Error)
		}
		return o.FirstOffset, o.LastOffset, nil
	}
	return 0, 0, fmt.Errorf("find the end of %s/%d: no answer", topicName, partition)
}
