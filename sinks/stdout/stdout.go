// Package stdout writes events as JSON lines to a writer, the standard output of the server.
package stdout

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Options of a Sink.
type Options struct {
	// Writer gets whole lines, one Write per Delivery.
	Writer io.Writer
	// Source is the name of the events' source.
	Source string
	// Encoder of the events: encode.JSON with the Separator '\n'.
	Encoder *encode.Encoder
}

// Sink writes lines. Deliveries wait for each other.
type Sink struct {
	o    Options
	turn chan struct{} // holds one token while nobody writes
}

// New returns a sink over a writer, which stays its owner's.
func New(o Options) *Sink {
	s := &Sink{o: o, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// Deliver implements pipeline.Sink. Nobody can interrupt a write to a reader that does not read: when ctx
// ends first, the write goes on behind, the events count as not delivered, and the next Deliver waits for it.
func (s *Sink) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	var g encode.Gathered
	s.o.Encoder.Gather(d, &g)
	defer g.Release()
	if err := s.write(ctx, g.AppendRange(make([]byte, 0, g.Size), 0, g.Size)); err != nil {
		return nil, err
	}
	if len(g.Errs) == 0 {
		return nil, nil
	}
	out := make(pipeline.Outcomes, len(g.Ends))
	for _, ee := range g.Errs {
		out[ee.Event] = pipeline.Outcome{Class: pipeline.Fatal, Reason: ee.Error()}
	}
	return out, nil
}

// write writes p, which is then the writer's.
func (s *Sink) write(ctx context.Context, p []byte) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return fmt.Errorf("stdout: wait for an earlier write: %w", ctx.Err())
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := s.o.Writer.Write(p)
		s.turn <- struct{}{}
		wrote <- err
	}()
	select {
	case err := <-wrote:
		if err != nil {
			return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "write to standard output: " + err.Error(), Err: err}
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stdout: %w", ctx.Err())
	}
}

// Resolve implements pipeline.Resolver.
func (s *Sink) Resolve(ctx context.Context, o pipeline.Offset, t time.Time) error {
	return s.write(ctx, append(encode.Resolved(s.o.Source, o, t), '\n'))
}

// Close implements pipeline.Sink. It does not wait for a write that nobody reads.
func (s *Sink) Close() error { return nil }
