// Package ingest pulls a source's stream into the log: it gives each event its table version and its
// key, splits an update that changed the key into delete and insert, appends, and tells the source what
// is durable.
//
// What it guarantees: the last durable block carries the position that it ends at, and the stream is
// always reopened there, so a crash or a lost connection at any step neither loses nor doubles an event
// in the log. The source is confirmed only up to what the log has fsynced.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Config of one source's way into its log. All fields but Backoff, Observer, Wait, Gate, Shed and Opened are required.
type Config struct {
	// Name of the source.
	Name   string
	Source pipeline.Source
	Log    pipeline.Log
	Route  Routes
	// Form reads the rows of a table version.
	Form     func(*schemas.Table) *cell.Form
	Observer pipeline.Observer
	// Backoff between attempts to connect, doubling; default 500 ms to 30 s.
	Backoff, MaxBackoff time.Duration
	// Wait sleeps, for tests; default real time.
	Wait func(ctx context.Context, d time.Duration) error
	// MaxEvent is how many bytes the images of one event may have; a larger one quarantines its table.
	// Default 960 MiB, which the log can hold in one block.
	MaxEvent int
	// Gate, when set, is asked before each batch is read and blocks while reading is throttled.
	Gate func(ctx context.Context) error
	// Shed, when set, is asked beside Gate: it names an open transaction (Batch.Open) that holds too much of the log, ""
	// where there is none. A stream that is a pipeline.Spiller is opened again without it.
	Shed func() string
	// Opened, when set, is told of each stream that was opened, before it is read: all that was read before is
	// durable. What it returns is called before the stream is closed.
	Opened func(pipeline.Stream) (closing func())
	// Releases, when set, are wishes that quarantines end.
	Releases *Releases
}

// Run reads until ctx ends (it returns nil) or something happened that trying again does not cure: a
// *pipeline.SourceError of class Stopped, or the log's error.
func Run(ctx context.Context, cfg Config) error {
	cfg.Observer = cfg.Observer.Fill()
	if cfg.Backoff == 0 {
		cfg.Backoff, cfg.MaxBackoff = 500*time.Millisecond, 30*time.Second
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	r := &reader{cfg: cfg, rows: newRows(cfg)}
	delay := cfg.Backoff
	for {
		began := r.batches
		err := r.once(ctx)
		if ctx.Err() != nil {
			cfg.Observer.SourceState(cfg.Name, "closed", nil)
			return nil
		}
		var se *pipeline.SourceError
		if r.logErr != nil || errors.As(err, &se) && se.Class == pipeline.Stopped {
			cfg.Observer.SourceState(cfg.Name, "stopped", err)
			// The next run over this log knows nothing of this one: it has to find all of it durable and no
			// transaction open.
			if r.logErr == nil && r.settle(ctx) != nil && r.logErr != nil {
				return r.logErr
			}
			return err
		}
		if r.batches > began {
			delay = cfg.Backoff
		}
		if errors.Is(err, errAgain) {
			continue
		}
		cfg.Observer.SourceState(cfg.Name, "retrying", err)
		if cfg.Wait(ctx, delay) != nil {
			cfg.Observer.SourceState(cfg.Name, "closed", nil)
			return nil
		}
		delay = min(2*delay, cfg.MaxBackoff)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reader is the state that outlives one connection; owned by Run's goroutine.
type reader struct {
	cfg     Config
	rows    *rows
	ticket  uint64 // of the last Append
	batches uint64
	open    map[string]bool // transactions whose chunks are appended and not closed
	logErr  error
	// position of the newest transaction that was appended, as subscribers see it.
	position string
}

// once reads one connection to its end.
func (r *reader) once(ctx context.Context) error {
	if err := r.settle(ctx); err != nil {
		return err
	}
	r.rows.catalog.anew()
	if err := r.release(ctx); err != nil {
		return err
	}
	r.cfg.Observer.SourceState(r.cfg.Name, "connecting", nil)
	stream, err := r.cfg.Source.Open(ctx, r.cfg.Log.Last())
	if err != nil {
		return err
	}
	r.cfg.Observer.SourceState(r.cfg.Name, "streaming", nil)
	closing := func() {}
	if r.cfg.Opened != nil {
		closing = r.cfg.Opened(stream)
	}
	ctx, stop := context.WithCancel(ctx)
	var joined sync.WaitGroup
	var confirmErr error
	joined.Go(func() {
		confirmErr = confirm(ctx, r.cfg.Log, stream)
		stop() // a log that failed takes nothing more
	})
	asked := false
	joined.Go(func() {
		if asked = r.cfg.Releases.wait(ctx); asked {
			stop()
		}
	})
	err = r.pump(ctx, stream)
	stop()
	joined.Wait()
	closing()
	if cerr := stream.Close(); err == nil {
		err = cerr
	}
	if confirmErr != nil {
		r.logErr = confirmErr
		return confirmErr
	}
	if asked {
		return errAgain
	}
	return err
}

// settle makes sure that the log's last position is behind all that was appended: what the old connection
// handed over is durable, and the transactions that it left open are dropped, as the source sends them
// again whole.
func (r *reader) settle(ctx context.Context) error {
	for _, open := range slices.Sorted(maps.Keys(r.open)) {
		b := pipeline.NewBatch()
		b.Kind, b.Open = pipeline.BatchAbort, open
		if err := r.append(ctx, b); err != nil {
			return err
		}
	}
	r.open = map[string]bool{}
	if r.ticket == 0 {
		return nil
	}
	_, err := r.cfg.Log.Synced(ctx, r.ticket-1)
	if err != nil && ctx.Err() == nil {
		r.logErr = err
	}
	return err
}

// confirm tells the stream what the log has made durable.
func confirm(ctx context.Context, log pipeline.Log, stream pipeline.Stream) error {
	var ticket uint64
	for {
		s, err := log.Synced(ctx, ticket)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("the log takes nothing more: %w", err)
		}
		ticket = s.Ticket
		if !s.End.Zero() {
			stream.Confirm(s.End)
		}
	}
}

func (r *reader) pump(ctx context.Context, stream pipeline.Stream) error {
	for {
		if err := r.shed(stream); err != nil {
			return err
		}
		if r.cfg.Gate != nil {
			if err := r.cfg.Gate(ctx); err != nil {
				return err
			}
		}
		b, err := stream.Next(ctx)
		if err != nil {
			return err
		}
		r.batches++
		if err := r.take(ctx, b); err != nil {
			return err
		}
	}
}

// shed ends the stream when a transaction is to come at its commit only: what the log has of it goes then.
func (r *reader) shed(stream pipeline.Stream) error {
	if r.cfg.Shed == nil {
		return nil
	}
	open := r.cfg.Shed()
	if s, ok := stream.(pipeline.Spiller); ok && open != "" && r.open[open] {
		return s.Spill(open)
	}
	return nil
}

func (r *reader) take(ctx context.Context, b *pipeline.Batch) error {
	switch b.Kind {
	case pipeline.BatchChunk:
		r.open[b.Open] = true
	case pipeline.BatchCommit, pipeline.BatchAbort, pipeline.BatchPrepared:
		delete(r.open, b.Open)
	}
	r.rows.prepare(b)
	if b.Kind == pipeline.BatchPrepared && len(r.rows.catalog.pending) > 0 { // it carries none, and nothing repeats it
		told := pipeline.NewBatch()
		told.Notices = r.rows.catalog.takeNotices()
		if err := r.noted(ctx, told); err != nil {
			b.Release()
			return err
		}
	}
	for _, n := range b.Notices {
		r.cfg.Observer.Noticed(r.cfg.Name, n)
	}
	if n := len(b.Txs); n > 0 && b.Kind != pipeline.BatchChunk && b.Snapshot == nil {
		if p := b.Bytes(b.Txs[n-1].Position); string(p) != r.position {
			r.position = string(p)
		}
	}
	events, bytes, end := len(b.Events), len(b.Arena), b.End
	if err := r.append(ctx, b); err != nil {
		return err
	}
	r.cfg.Observer.Ingested(r.cfg.Name, events, bytes, end)
	return nil
}

func (r *reader) append(ctx context.Context, b *pipeline.Batch) error {
	ticket, err := r.cfg.Log.Append(ctx, b)
	if err != nil {
		if ctx.Err() == nil {
			r.logErr = err
		}
		return err
	}
	r.ticket = ticket
	return nil
}
