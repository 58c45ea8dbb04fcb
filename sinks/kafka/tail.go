package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
func (t *tail) read(r protocol.RecordReader) (next int64, err error) {
	var offsets []uint64
	var high uint64
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
			offsets, high = append(offsets, o), max(high, h)
		}
	}
	if len(offsets) > 0 {
		t.batchSeen(offsets, max(high, slices.Max(offsets)))
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
	return offset, high, ours && offset > 0
}

// firstWindow is how many records of a partition are looked at first.
const firstWindow = 1000

// readTail walks back from the end of a partition as far as the cursor asks, or from the offset `from` on when that is
// known. end is Kafka's offset behind the last record.
func (p *producer) readTail(ctx context.Context, topicName string, partition int, from int64) (t *tail, end int64, err error) {
	t = &tail{producer: p.s.TransactionalID(), cursor: p.cursor}
	first, end, err := p.bounds(ctx, topicName, partition)
	if err != nil {
		return nil, 0, err
	}
	if from >= 0 {
		return t, end, p.readWindow(ctx, t, topicName, partition, max(from, first), end)
	}
	t.reaches = p.cursor.Low == 0 // nobody has said where deliveries go on: the first window has to do
	for to, window := end, int64(firstWindow); to > first && (to == end || !t.reaches); window *= 8 {
		at := max(first, to-window)
		if err := p.readWindow(ctx, t, topicName, partition, at, to); err != nil {
			return nil, 0, err
		}
		to = at
	}
	return t, end, nil
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
		next, err := t.batches(resp.Records)
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

// batches takes what one fetch brought, batches as a whole, and returns where the next one goes on.
func (t *tail) batches(records protocol.RecordReader) (next int64, err error) {
	stream, ok := records.(*protocol.RecordStream)
	if !ok {
		return 0, nil
	}
	for _, r := range stream.Records {
		switch b := r.(type) {
		case *protocol.ControlBatch:
			next = max(next, b.BaseOffset+1)
		case *protocol.RecordBatch:
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
