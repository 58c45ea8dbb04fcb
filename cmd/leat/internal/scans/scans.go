// Package scans reads the past of logs for many at once: who wants a stretch that another reads, or has just read,
// gets the same batches. Fifty readers of one stretch cost about one read of it.
//
// A chunk is some consecutive batches that were read together. Who asks for an offset of no chunk reads one; who
// asks near to where a chunk is being read waits for it and looks again. Chunks are kept while they are of use, up
// to a bound.
package scans

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

const (
	// chunkBytes ends a chunk; a single batch may be larger.
	chunkBytes = 1 << 20
	// near are offsets in which a chunk that is being read may contain what is wanted.
	near = 1 << 16
	// keep is how long chunks stay after their last use.
	keep = 2 * time.Second
	// aheadTime bounds how long who is ahead waits for those behind, per chunk.
	aheadTime = 200 * time.Millisecond
	// gapTime bounds the wait for a batch that should be there: the end of a log may be a gap in the offsets.
	gapTime = time.Second
)

// Scans are shared reads. Safe for concurrent use.
type Scans struct {
	max   int64
	turns chan struct{}

	mu      sync.Mutex
	chunks  []*chunk // the least lately used first
	bytes   int64    // of those that are done
	readers map[*reader]struct{}
	moved   chan struct{} // closed when a reader has moved or gone
	idle    *time.Timer
	closed  bool
}

// reader is one Each under way: it has come to at.
type reader struct {
	log    string
	at, to pipeline.Offset
}

// chunk is [from, to) of a log; what but from and ready is written before ready is closed.
type chunk struct {
	log     string
	from    pipeline.Offset // as asked for, then of the first batch
	to      pipeline.Offset
	batches []*pipeline.Batch
	bytes   int64
	ready   chan struct{}
	done    bool // under Scans.mu
	err     error
}

// New keeps at most max bytes of batches, and reads with at most `at` readers at once.
func New(max int64, at int) *Scans {
	return &Scans{max: max, turns: make(chan struct{}, at), readers: map[*reader]struct{}{}, moved: make(chan struct{})}
}

// Close gives back what is kept. What is read now ends as it likes.
func (s *Scans) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.drop(0, anyChunk)
	if s.idle != nil {
		s.idle.Stop()
	}
}

// drop forgets the chunks that which names, the least lately used first, until at most max bytes are kept. s.mu is
// held.
func (s *Scans) drop(max int64, which func(*chunk) bool) {
	kept := s.chunks[:0]
	for _, c := range s.chunks {
		if !c.done || s.bytes <= max || !which(c) {
			kept = append(kept, c)
			continue
		}
		s.bytes -= c.bytes
		for _, b := range c.batches {
			b.Release()
		}
	}
	clear(s.chunks[len(kept):])
	s.chunks = kept
}

func anyChunk(*chunk) bool { return true }

// wanted reports whether a reader comes to the chunk. s.mu is held.
func (s *Scans) wanted(c *chunk) bool {
	for r := range s.readers {
		if r.log == c.log && r.at < c.to && c.from < r.to {
			return true
		}
	}
	return false
}

// room makes room for one more chunk for me; false: others, who are behind me, come to all that is kept, so me is to
// wait for them, unless it must go on. s.mu is held.
func (s *Scans) room(me *reader, must bool) bool {
	limit := s.max - chunkBytes
	for _, c := range s.chunks {
		if !c.done {
			limit -= chunkBytes
		}
	}
	s.drop(limit, func(c *chunk) bool { return !s.wanted(c) })
	if s.bytes <= limit {
		return true
	}
	for r := range s.readers {
		if !must && r.log == me.log && r.at < me.at {
			return false
		}
	}
	for s.bytes > limit { // what lies furthest ahead
		var far *chunk
		for _, c := range s.chunks {
			if c.done && (far == nil || c.from > far.from) {
				far = c
			}
		}
		if far == nil {
			break
		}
		s.drop(0, func(c *chunk) bool { return c == far })
	}
	return true
}

// move notes where a reader has come to; it is gone when that is its end.
func (s *Scans) move(r *reader, at pipeline.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.at = at; at >= r.to {
		delete(s.readers, r)
	} else {
		s.readers[r] = struct{}{}
	}
	close(s.moved)
	s.moved = make(chan struct{})
}

// Each calls f with the batches that hold [from, to) of the log, in order, until f returns false. The first and
// last may reach beyond. f must not keep a batch without a reference of its own. Errors are those of the log's
// Read and Next, and of f.
func (s *Scans) Each(ctx context.Context, log pipeline.Log, from, to pipeline.Offset, f func(b *pipeline.Batch) (bool, error)) error {
	_, next := log.Bounds()
	to = min(to, next)
	me := &reader{log: log.ID(), to: to}
	defer s.move(me, to)
	for at := from; at < to; {
		s.move(me, at)
		batches, end, err := s.batches(ctx, log, me, next)
		if err != nil {
			return err
		}
		more := true
		for _, b := range batches {
			if more && err == nil && b.Next() > at && b.Base < to {
				more, err = f(b)
			}
			b.Release()
		}
		if err != nil || !more {
			return err
		}
		at = end
	}
	return nil
}

// batches returns those of the chunk that holds me.at, each with a reference, and the offset where it ends.
func (s *Scans) batches(ctx context.Context, log pipeline.Log, me *reader, next pipeline.Offset) ([]*pipeline.Batch, pipeline.Offset, error) {
	waited := time.NewTimer(aheadTime)
	defer waited.Stop()
	must := false
	for {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		c, stop, moved := s.find(me, next, must)
		if c == nil {
			select {
			case <-moved:
			case <-waited.C:
				must = true
			case <-ctx.Done():
			}
			continue
		}
		mine := stop > 0
		if mine {
			s.read(ctx, log, c, stop)
			s.finish(c)
		}
		select {
		case <-c.ready:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
		if c.err != nil {
			if gone := errors.Is(c.err, context.Canceled) || errors.Is(c.err, context.DeadlineExceeded); gone && !mine {
				continue // who read it went away
			}
			return nil, 0, c.err
		}
		if out, ok := s.take(c, me.at); ok {
			return out, c.to, nil
		}
	}
}

// find returns the chunk that holds me.at, or one that may. With a stop above 0 it was made now, and me reads it up to
// there. Nil: there is no room before moved.
func (s *Scans) find(me *reader, next pipeline.Offset, must bool) (c *chunk, stop pipeline.Offset, moved chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.chunks {
		switch {
		case c.log != me.log:
		case !c.done:
			if me.at < c.from+near && c.from < me.at+near {
				return c, 0, nil
			}
		case c.from <= me.at && me.at < c.to:
			s.chunks = append(append(s.chunks[:i], s.chunks[i+1:]...), c) // the latest used
			return c, 0, nil
		}
	}
	if !s.room(me, must) {
		return nil, 0, s.moved
	}
	stop = next
	for _, c := range s.chunks {
		if c.log == me.log && c.done && c.from > me.at {
			stop = min(stop, c.from)
		}
	}
	c = &chunk{log: me.log, from: me.at, to: me.at, ready: make(chan struct{})}
	s.chunks = append(s.chunks, c)
	return c, stop, nil
}

// read fills a chunk.
func (s *Scans) read(ctx context.Context, log pipeline.Log, c *chunk, stop pipeline.Offset) {
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-ctx.Done():
		c.err = ctx.Err()
		return
	}
	r, err := log.Read(c.from)
	if err != nil {
		c.err = err
		return
	}
	defer r.Close()
	for c.to < stop && c.bytes < chunkBytes {
		limited, cancel := context.WithTimeout(ctx, gapTime)
		b, err := r.Next(limited)
		late := limited.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err != nil && late:
			c.to = stop // a gap at the end
			return
		case err != nil:
			c.err = fmt.Errorf("read the log: %w", err)
			return
		case len(b.Events) == 0:
			b.Release()
			continue
		}
		c.to = b.Next()
		c.bytes += int64(b.Size())
		c.batches = append(c.batches, b)
	}
}

// finish shows a chunk to all.
func (s *Scans) finish(c *chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.err != nil {
		for _, b := range c.batches {
			b.Release()
		}
		c.batches, c.bytes = nil, 0
		for i := range s.chunks {
			if s.chunks[i] == c {
				s.chunks = append(s.chunks[:i], s.chunks[i+1:]...)
				break
			}
		}
	} else if len(c.batches) > 0 {
		c.from = min(c.from, c.batches[0].Base)
	}
	c.done = true
	s.bytes += c.bytes
	close(c.ready)
}

// take gives references to a chunk's batches; false: it does not hold at, or holds nothing any more.
func (s *Scans) take(c *chunk, at pipeline.Offset) ([]*pipeline.Batch, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := false
	for _, x := range s.chunks {
		kept = kept || x == c
	}
	if !kept || at < c.from || at >= c.to {
		return nil, false
	}
	out := append([]*pipeline.Batch(nil), c.batches...)
	for _, b := range out {
		b.Retain()
	}
	if s.closed {
		s.drop(0, anyChunk)
		return out, true
	}
	if s.idle == nil {
		s.idle = time.AfterFunc(keep, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.drop(0, anyChunk)
		})
	}
	s.idle.Reset(keep)
	return out, true
}
