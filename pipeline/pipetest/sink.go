package pipetest

import (
	"context"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
)

// Delivered is one event as a RecordingSink saw it.
type Delivered struct {
	Offset        pipeline.Offset
	Op            pipeline.Op
	Hash          uint64
	Key           string
	Before, After string
	Attempt       int
	Reason        pipeline.Reason
}

// RecordingSink records what it is given. Answer, when set, decides what becomes of a Delivery.
type RecordingSink struct {
	Answer func(ctx context.Context, d *pipeline.Delivery, events []Delivered) (pipeline.Outcomes, error)

	mu      sync.Mutex
	all     []Delivered
	grown   chan struct{}
	flying  int
	most    int
	closed  bool
	byKey   map[string]int
	overlap int
}

// NewRecordingSink returns a sink that acknowledges everything.
func NewRecordingSink() *RecordingSink {
	return &RecordingSink{grown: make(chan struct{}), byKey: map[string]int{}}
}

// Deliver implements pipeline.Sink.
func (s *RecordingSink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	events := make([]Delivered, 0, d.Events)
	keys := map[string]bool{}
	_ = d.Each(func(_ int, b *pipeline.Batch, i int, as pipeline.Op) error {
		e := &b.Events[i]
		op := e.Op
		if as != pipeline.OpNone {
			op = as
		}
		events = append(events, Delivered{b.Offset(i), op, e.Hash, string(b.Bytes(e.Key)), string(b.Bytes(e.Before)), string(b.Bytes(e.After)), d.Attempt, d.Reason})
		keys[string(b.Bytes(e.Key))] = true
		return nil
	})
	s.begin(keys)
	defer s.end(keys)
	if s.Answer != nil {
		out, err := s.Answer(ctx, d, events)
		s.record(events)
		return out, err
	}
	s.record(events)
	return nil, nil
}

func (s *RecordingSink) begin(keys map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying++
	s.most = max(s.most, s.flying)
	for k := range keys {
		if s.byKey[k]++; s.byKey[k] > 1 {
			s.overlap++
		}
	}
}

func (s *RecordingSink) end(keys map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying--
	for k := range keys {
		s.byKey[k]--
	}
}

func (s *RecordingSink) record(events []Delivered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, events...)
	close(s.grown)
	s.grown = make(chan struct{})
}

// All returns what was delivered so far, in the order it came back.
func (s *RecordingSink) All() []Delivered {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Delivered(nil), s.all...)
}

// Wait blocks until done says so of what was delivered.
func (s *RecordingSink) Wait(ctx context.Context, done func([]Delivered) bool) error {
	for {
		s.mu.Lock()
		ok, grown := done(s.all), s.grown
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Most returns how many Delivers ran at once at most, and how often one key was in two of them.
func (s *RecordingSink) Most() (flying, overlapping int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most, s.overlap
}

// Close implements pipeline.Sink.
func (s *RecordingSink) Close() error { s.mu.Lock(); s.closed = true; s.mu.Unlock(); return nil }
