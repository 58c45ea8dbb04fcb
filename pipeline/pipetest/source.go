package pipetest

import (
	"context"
	"errors"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
)

// Step is one thing that a scripted stream does: hand over a batch, or fail.
type Step struct {
	Make func() *pipeline.Batch // a fresh batch each time it is read
	Err  error
}

// ScriptedSource is a pipeline.Source that follows a script. Every step whose batch has an End is a place
// to resume; a stream that is opened at an End goes on behind it.
type ScriptedSource struct {
	mu        sync.Mutex
	steps     []Step
	ends      []pipeline.Position // by step
	failed    map[int]bool
	confirmed pipeline.Position
	opened    int
	OpenErr   error
	grown     chan struct{}
}

// NewScriptedSource returns a source that will hand over the steps, each error once.
func NewScriptedSource(steps ...Step) *ScriptedSource {
	s := &ScriptedSource{failed: map[int]bool{}, grown: make(chan struct{})}
	s.Add(steps...)
	return s
}

// Add lengthens the script.
func (s *ScriptedSource) Add(steps ...Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range steps {
		var end pipeline.Position
		if st.Make != nil {
			b := st.Make()
			end = b.End
			b.Release()
		}
		s.steps, s.ends = append(s.steps, st), append(s.ends, end)
	}
	close(s.grown)
	s.grown = make(chan struct{})
}

// Confirmed returns the newest position that was confirmed.
func (s *ScriptedSource) Confirmed() pipeline.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed
}

// Heal takes OpenErr back.
func (s *ScriptedSource) Heal() { s.mu.Lock(); s.OpenErr = nil; s.mu.Unlock() }

// Opened counts the streams opened so far.
func (s *ScriptedSource) Opened() int { s.mu.Lock(); defer s.mu.Unlock(); return s.opened }

// Open implements pipeline.Source.
func (s *ScriptedSource) Open(_ context.Context, after pipeline.Position) (pipeline.Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if s.OpenErr != nil {
		return nil, s.OpenErr
	}
	at := 0
	for i, end := range s.ends {
		if !after.Zero() && end == after {
			at = i + 1
		}
	}
	return &scriptedStream{source: s, at: at, done: make(chan struct{})}, nil
}

type scriptedStream struct {
	source *ScriptedSource
	at     int
	done   chan struct{}
	once   sync.Once
}

func (t *scriptedStream) Next(ctx context.Context) (*pipeline.Batch, error) {
	s := t.source
	for {
		s.mu.Lock()
		if t.at < len(s.steps) {
			i := t.at
			step := s.steps[i]
			t.at++
			spent := s.failed[i]
			s.failed[i] = step.Err != nil
			s.mu.Unlock()
			if step.Err == nil {
				return step.Make(), nil
			}
			if spent {
				continue
			}
			return nil, step.Err
		}
		grown := s.grown
		s.mu.Unlock()
		select {
		case <-grown:
		case <-t.done:
			return nil, errors.New("the stream is closed")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (t *scriptedStream) Confirm(p pipeline.Position) {
	t.source.mu.Lock()
	defer t.source.mu.Unlock()
	if p.Counter > t.source.confirmed.Counter {
		t.source.confirmed = p
	}
}

func (t *scriptedStream) Close() error { t.once.Do(func() { close(t.done) }); return nil }
