// Package status is a source of Leat's own making: changes of state of the subscriptions and sources of an installation,
// as logical messages.
//
// What happens is told by [Source.Changed], from any goroutine, and handed to the log by the stream. Each subject
// (a subscription, a source, a subscription's laggard stage) is told at most once a second, with what holds then, and not
// when that is what was told last: one that flaps fills no log.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Prefix of the messages.
const Prefix = "leat.status"

// damp is the least time between two messages about one subject; maxReason bounds their words.
const (
	damp      = time.Second
	maxReason = 1000
)

// Change is the content of a message.
type Change struct {
	// Kind: subscription, source, laggard (how near a subscription is to what retention removes).
	Kind string `json:"kind"`
	// Name of the subscription or source; Source of a subscription.
	Name   string `json:"name"`
	Source string `json:"source,omitempty"`
	// State as leat status shows it, and the one that was told before.
	State  string `json:"state"`
	Was    string `json:"was,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Code of a source's error, Policy of a laggard.
	Code   string `json:"code,omitempty"`
	Policy string `json:"policy,omitempty"`
	// Time of the change.
	Time time.Time `json:"time"`
}

func (c *Change) subject() string { return c.Kind + " " + c.Name }

// Source implements [pipeline.Source]. Safe for concurrent use.
type Source struct {
	mu      sync.Mutex
	pending map[string]Change // by subject
	order   []string          // of pending, the oldest change first
	told    map[string]told
	sent    []numbered // handed over, not confirmed
	wake    chan struct{}
}

type told struct {
	at     time.Time
	change Change
}

type numbered struct {
	counter uint64
	change  Change
}

// New returns a source to which nothing has happened.
func New() *Source {
	return &Source{pending: map[string]Change{}, told: map[string]told{}, wake: make(chan struct{}, 1)}
}

// Changed tells what happened. It never blocks.
func (s *Source) Changed(c Change) {
	c.Reason = strings.ToValidUTF8(c.Reason, "?")
	if len(c.Reason) > maxReason {
		c.Reason = strings.ToValidUTF8(c.Reason[:maxReason], "") + "…"
	}
	s.mu.Lock()
	s.put(c)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// put makes c what is to be told about its subject. s.mu is held.
func (s *Source) put(c Change) {
	id := c.subject()
	if _, waits := s.pending[id]; !waits {
		s.order = append(s.order, id)
	}
	s.pending[id] = c
}

// Forget drops what is known of a subscription or source that is no more.
func (s *Source) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kind := range []string{"subscription ", "source ", "laggard "} {
		delete(s.told, kind+name)
	}
}

// due takes what may be told now, and says when the next may; zero: nothing waits. s.mu is held.
func (s *Source) due(now time.Time) (out []Change, next time.Time) {
	s.order = slices.DeleteFunc(s.order, func(id string) bool {
		c, last := s.pending[id], s.told[id]
		if at := last.at.Add(damp); !last.at.IsZero() && now.Before(at) {
			if next.IsZero() || at.Before(next) {
				next = at
			}
			return false
		}
		delete(s.pending, id)
		if c.State == last.change.State && c.Reason == last.change.Reason && c.Code == last.change.Code {
			return true
		}
		c.Was = last.change.State
		s.told[id] = told{now, c}
		out = append(out, c)
		return true
	})
	return out, next
}

// Open implements [pipeline.Source]: what was handed over and is not in the log comes again.
func (s *Source) Open(_ context.Context, after pipeline.Position) (pipeline.Stream, error) {
	if _, err := strconv.ParseUint(after.Token, 10, 64); err != nil && !after.Zero() {
		return nil, &pipeline.SourceError{Class: pipeline.Stopped, Code: "position", What: fmt.Sprintf("the log is not one of a status source (its position is %q)", after.Token),
			Cure: "give the source another name, or remove the old one with `leat source remove`"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var again []Change
	for _, n := range s.sent {
		if n.counter > after.Counter {
			again = append(again, n.change)
		}
	}
	s.sent = nil
	return &stream{s: s, counter: after.Counter, first: again, closed: make(chan struct{})}, nil
}

// stream is one opening. Next and Close by one goroutine, Confirm by any.
type stream struct {
	s       *Source
	counter uint64
	first   []Change
	once    sync.Once
	closed  chan struct{}
}

// Next implements [pipeline.Stream].
func (t *stream) Next(ctx context.Context) (*pipeline.Batch, error) {
	for {
		now := time.Now()
		out := t.first
		t.first = nil
		var next time.Time
		if len(out) == 0 {
			t.s.mu.Lock()
			out, next = t.s.due(now)
			t.s.mu.Unlock()
		}
		if len(out) > 0 {
			return t.batch(out, now)
		}
		if err := t.wait(ctx, next); err != nil {
			return nil, err
		}
	}
}

func (t *stream) wait(ctx context.Context, until time.Time) error {
	var at <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		at = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.closed:
		return pipeline.ErrClosed
	case <-t.s.wake:
	case <-at:
	}
	return nil
}

// batch makes a transaction of each change.
func (t *stream) batch(all []Change, now time.Time) (*pipeline.Batch, error) {
	b := pipeline.NewBatch()
	b.Read = now
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	for _, c := range all {
		text, err := json.Marshal(c)
		if err != nil {
			b.Release()
			return nil, errors.Join(errors.New("a change of state as JSON"), err)
		}
		t.counter++
		id := b.PutString(strconv.FormatUint(t.counter, 10))
		b.Txs = append(b.Txs, pipeline.Tx{ID: id, Position: id, Time: now.UnixMicro(), First: uint32(len(b.Events)), Ends: true})
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpMessage, Table: pipeline.NoTable, Tx: uint32(len(b.Txs) - 1), Key: pipeline.Nowhere,
			Before: b.PutString(Prefix), After: b.Put(text)})
		t.s.sent = append(t.s.sent, numbered{t.counter, c})
	}
	b.End = pipeline.Position{Counter: t.counter, Token: strconv.FormatUint(t.counter, 10)}
	return b, nil
}

// Confirm implements [pipeline.Stream].
func (t *stream) Confirm(p pipeline.Position) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.sent = slices.DeleteFunc(t.s.sent, func(n numbered) bool { return n.counter <= p.Counter })
}

// Close implements [pipeline.Stream].
func (t *stream) Close() error {
	t.once.Do(func() { close(t.closed) })
	return nil
}

// Check finds nothing: the source is Leat itself.
func (s *Source) Check(context.Context) []pipeline.Finding { return nil }

// Remove has nothing to remove.
func (s *Source) Remove(context.Context) error { return nil }
