package disklog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// reader is one way through the log: from the ring while that has what it wants, else from segments.
type reader struct {
	l *Log

	// from is the offset that Next goes on from. Under use, as what follows it.
	from pipeline.Offset

	// use is held by Next and by Close's clean-up; done is closed by Close.
	use  sync.Mutex
	done chan struct{}
	once sync.Once

	// Under use:
	at     place
	number int64 // the ring's entry expected next
	seg    *segment
	in     stream // of seg
	commit *commitRead
	chunks []record.Chunk
	// stood is the place from which nothing visible was passed over, was the same before the last batch.
	stood, was place
	near       *group // what it shares with others; nil: there are none near
	run        *run   // what it took
	used       int    // of run's batches

	// Under Log.mu:
	mark   uint64 // about where it is
	marked bool
	left   bool // it does not read segments any more
}

// commitRead is a commit block whose chunks are being read from the disk.
type commitRead struct {
	commit
	chunks []record.Chunk
	size   int
	seg    *segment
	in     stream
	limit  int64 // of seg: chunks lie before their commit
}

// Read returns a reader from the first event at or above from.
func (l *Log) Read(from pipeline.Offset) (pipeline.LogReader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest, next := l.mu.segs[0].base(), l.mu.synced.Next
	switch {
	case l.mu.closed:
		return nil, pipeline.ErrClosed
	case from > next:
		return nil, fmt.Errorf("read log of %s from %d, next is %d: %w", l.opt.Source, from, next, pipeline.ErrBeyondTail)
	case from < oldest:
		return nil, &pipeline.TruncatedError{Asked: from, Oldest: oldest}
	}
	r := &reader{l: l, from: from, done: make(chan struct{}), at: l.seek(from)}
	l.mu.readers[r] = struct{}{}
	return r, nil
}

// seek returns the place to begin for from; what lies before from there is skipped. l.mu is held.
func (l *Log) seek(from pipeline.Offset) place {
	if from >= l.mu.ring.lowBase {
		if at, ok := l.mu.ring.seek(from); ok {
			return at
		}
		if active := l.mu.segs[len(l.mu.segs)-1]; from >= l.mu.synced.Next {
			return place{address: address(active.seq, active.end)}
		}
	}
	s := l.mu.segs[0]
	for _, o := range l.mu.segs[1:] {
		if o.base() >= from {
			break // notices at the end of the segment before may stand at from
		}
		s = o
	}
	return place{address: address(s.seq, s.index.seek(from))}
}

// Next returns the next visible batch.
func (r *reader) Next(ctx context.Context) (*pipeline.Batch, error) {
	r.use.Lock()
	defer r.use.Unlock()
	b, err := r.next(ctx)
	if err == nil {
		r.from = b.Next()
	}
	return b, err
}

func (r *reader) next(ctx context.Context) (*pipeline.Batch, error) {
	for {
		select {
		case <-r.done:
			return nil, pipeline.ErrClosed
		default:
		}
		if r.run != nil {
			if b := r.taken(); b != nil {
				return b, nil
			}
		}
		b, wait, err := r.tail()
		r.tidy()
		if b != nil || err != nil {
			return b, err
		}
		if wait != nil {
			select {
			case <-wait:
			case <-r.done:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if r.near != nil {
			if err := r.share(); err != nil {
				return nil, err
			}
		} else if b, err = r.read(); b != nil || err != nil {
			return b, err
		}
	}
}

// tail looks into the ring. All nil: what comes next is on the disk. A channel: there is nothing yet.
func (r *reader) tail() (*pipeline.Batch, <-chan struct{}, error) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.closed {
		return nil, nil, pipeline.ErrClosed
	}
	if r.commit != nil && r.at.before(l.mu.ring.low) {
		return nil, nil, nil
	}
	if r.at.before(l.mu.ring.low) {
		return nil, nil, r.enter()
	}
	r.leave()
	for {
		e, number := l.mu.ring.find(r.at, r.number)
		r.number = number
		if e == nil {
			if l.mu.failed != nil {
				return nil, nil, l.mu.failed
			}
			return nil, l.mu.wake, nil
		}
		r.at, r.number = e.next, number+1
		r.stood = r.at
		if !skips(e.base, e.events, r.from) {
			e.batch.Retain()
			return e.batch, nil, nil
		}
	}
}

// enter takes hold of the segment that r.at lies in, moving on from the end of a sealed one. l.mu is held.
func (r *reader) enter() error {
	for {
		seq, off := split(r.at.address)
		if r.seg == nil || r.seg.seq != seq {
			r.giveBack()
			if err := r.l.acquire(seq, r.from, &r.seg, &r.in); err != nil {
				return err
			}
			r.marked, r.stood = false, r.at
		}
		if !r.seg.sealed || off < r.seg.end {
			r.look()
			return nil
		}
		r.at = place{address: address(seq+1, firstBlock)}
	}
}

// acquire holds the segment seq and points the stream at it. l.mu is held.
func (l *Log) acquire(seq uint64, asked pipeline.Offset, to **segment, in *stream) error {
	oldest := l.mu.segs[0]
	if seq < oldest.seq {
		return &pipeline.TruncatedError{Asked: asked, Oldest: oldest.base()}
	}
	s := l.mu.segs[seq-oldest.seq]
	if s.file == nil {
		f, err := l.opt.FS.OpenFile(s.name, os.O_RDONLY)
		if err != nil {
			return fmt.Errorf("open segment: %w", err)
		}
		s.file = f
	}
	s.refs++
	*to = s
	*in = stream{file: s.file, name: s.name, seq: s.seq}
	return nil
}

// letGo gives a segment back. l.mu is held.
func (l *Log) letGo(s *segment, in *stream) {
	in.drop()
	s.refs--
	active := len(l.mu.segs) > 0 && l.mu.segs[len(l.mu.segs)-1] == s && !l.mu.closed
	if s.refs == 0 && !active && s.file != nil {
		_ = s.file.Close() // opened for reading, or synced before
		s.file = nil
	}
}

// leave ends reading of segments. l.mu is held.
func (r *reader) leave() {
	r.left = r.left || r.seg != nil
	r.near = nil
	r.giveBack()
}

// tidy lets go of what was shared when fewer than two readers of segments are left.
func (r *reader) tidy() {
	if !r.left {
		return
	}
	r.left = false
	r.l.mu.Lock()
	n := 0
	for o := range r.l.mu.readers {
		if o.seg != nil {
			n++
		}
	}
	r.l.mu.Unlock()
	if n < 2 {
		r.l.group.clear()
	}
}

// giveBack gives back what the reader holds of segments. l.mu is held.
func (r *reader) giveBack() {
	if r.seg != nil {
		r.l.letGo(r.seg, &r.in)
		r.seg = nil
	}
	r.dropCommit()
}

func (r *reader) dropCommit() {
	if c := r.commit; c != nil {
		if c.seg != nil {
			r.l.letGo(c.seg, &c.in)
		}
		c.batch.Release()
		r.commit = nil
	}
}

// read goes on in the segment that tail entered until there is a batch or the ring may have what follows.
func (r *reader) read() (*pipeline.Batch, error) {
	b, err := r.disk()
	if r.was = r.stood; b != nil {
		r.stood = r.at
	}
	return b, err
}

func (r *reader) disk() (*pipeline.Batch, error) {
	if r.commit != nil {
		return r.chunk()
	}
	r.l.mu.Lock()
	limit := r.seg.end
	r.l.mu.Unlock()
	for {
		_, off := split(r.at.address)
		if off >= limit {
			return nil, nil
		}
		h, err := r.in.header(off, limit)
		if err != nil {
			return nil, r.damage(&r.in, off, err)
		}
		wanted := h.Kind == record.KindRows || h.Kind == record.KindCommit || h.Kind == record.KindRanges || h.Kind == record.KindSnapshot
		if !wanted && h.Kind != record.KindChunk { // small, and damage is told wherever it lies
			if _, _, err := r.in.block(off, limit); err != nil {
				return nil, r.damage(&r.in, off, err)
			}
		}
		if !wanted || h.Events > 0 && skips(h.Base, int(h.Events), r.from) {
			r.at = place{address: r.at.address + uint64(h.Size())}
			if wanted {
				r.stood = r.at
			}
			continue
		}
		b, err := r.batch(off, limit)
		if r.commit != nil {
			return r.chunk()
		}
		if b != nil || err != nil {
			return b, err
		}
	}
}

// batch reads the rows or commit block at off. Nil without an error: there is nothing to hand out, or
// r.commit says that chunks follow.
func (r *reader) batch(off, limit int64) (*pipeline.Batch, error) {
	h, block, err := r.in.block(off, limit)
	if err != nil {
		return nil, r.damage(&r.in, off, err)
	}
	bb := newBlockBatch()
	if r.chunks, err = record.Decode(block, &h, bb.Batch, r.l.resolver(r.seg, &r.in), r.chunks); err != nil {
		bb.Arena = nil
		bb.Release()
		return nil, r.damage(&r.in, off, err)
	}
	if len(bb.Arena) < pinnable {
		bb.ownArena(0)
	} else {
		bb.alias(r.in.buf)
	}
	after := place{address: r.at.address + uint64(h.Size())}
	if h.Kind == record.KindCommit && h.Events > 0 {
		c := &commitRead{chunks: append([]record.Chunk(nil), r.chunks...), size: h.Size()}
		c.batch, c.base = bb.Batch, h.Base
		c.last = lastChunk(len(c.chunks), func(i int) uint32 { return c.chunks[i].Events })
		for _, ch := range c.chunks[:min(r.at.chunk, len(c.chunks))] {
			c.before += ch.Events
		}
		r.commit = c
		return nil, nil
	}
	r.at = after
	if empty := len(bb.Notices) == 0 && len(bb.Ranges) == 0; len(bb.Events) == 0 && (empty || skips(bb.Base, 0, r.from)) {
		bb.Release()
		if !empty {
			r.stood = r.at
		}
		return nil, nil
	}
	return bb.Batch, nil
}

// chunk reads the next chunk of r.commit.
func (r *reader) chunk() (b *pipeline.Batch, err error) {
	c := r.commit
	for b == nil && r.at.chunk <= c.last {
		k := r.at.chunk
		ref := c.chunks[k]
		base := c.base + pipeline.Offset(c.before)
		wanted := ref.Events > 0 && !skips(base, int(ref.Events), r.from)
		if wanted {
			if b, err = r.readChunk(c, k, ref); err != nil {
				return nil, err
			}
		}
		c.before += ref.Events
		r.at.chunk++
		if ref.Events > 0 && !wanted {
			r.stood = r.at
		}
	}
	if r.at.chunk > c.last {
		r.at = place{address: r.at.address + uint64(c.size)}
		r.l.mu.Lock()
		defer r.l.mu.Unlock()
		r.dropCommit()
	}
	return b, nil
}

func (r *reader) readChunk(c *commitRead, k int, ref record.Chunk) (*pipeline.Batch, error) {
	seq, off := split(ref.Address)
	if c.seg == nil || c.seg.seq != seq {
		r.l.mu.Lock()
		if c.seg != nil {
			r.l.letGo(c.seg, &c.in)
			c.seg = nil
		}
		err := r.l.acquire(seq, r.from, &c.seg, &c.in)
		if err == nil {
			c.limit = min(c.seg.end, int64(r.at.address)-int64(address(seq, 0)))
			c.in.group = r.near
		}
		r.l.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	h, block, err := c.in.block(off, c.limit)
	if err == nil && (h.Kind != record.KindChunk || uint64(h.Events) != ref.Written()) {
		err = &record.InvalidError{What: "no chunk where the commit says"}
	}
	if err != nil {
		return nil, r.damage(&c.in, off, err)
	}
	bb := newBlockBatch()
	if _, err := record.Decode(block, &h, bb.Batch, r.l.resolver(c.seg, &c.in), nil); err != nil {
		bb.Arena = nil
		bb.Release()
		return nil, r.damage(&c.in, off, err)
	}
	bb.ownArena(c.room())
	c.fill(bb.Batch, k, ref.Cuts)
	bb.own = bb.Arena
	return bb.Batch, nil
}

// damage names the place of bytes that are not what was written: all that a reader sees was synced.
func (r *reader) damage(in *stream, off int64, err error) error {
	var invalid *record.InvalidError
	if bad(err) || errors.As(err, &invalid) {
		return &DamageError{File: in.name, Offset: off, What: err.Error()}
	}
	return err
}

// resolver finds table versions: those known, else by the segment's list of schemas.
func (l *Log) resolver(s *segment, in *stream) record.Resolver {
	return func(id, version uint32) *schemas.Table {
		if t := l.tables.get(id, version); t != nil {
			return t
		}
		l.mu.Lock()
		off, ok := s.index.at[versionKey{id, version}]
		l.mu.Unlock()
		if !ok {
			return nil
		}
		other := stream{file: in.file, name: in.name, seq: in.seq}
		defer other.drop()
		t, err := schemaBlock(&other, int64(off), 1<<32-1)
		if err != nil || t.ID != id || t.Version != version {
			return nil
		}
		return l.tables.intern(t)
	}
}

// Behind reports whether the last batch came from a segment.
func (r *reader) Behind() bool {
	r.use.Lock()
	defer r.use.Unlock()
	return r.seg != nil
}

// Close frees what the reader holds and wakes a blocked Next.
func (r *reader) Close() error {
	r.once.Do(func() {
		close(r.done)
		r.use.Lock()
		defer r.use.Unlock()
		r.l.mu.Lock()
		r.leave()
		delete(r.l.mu.readers, r)
		r.l.mu.Unlock()
		r.dropRun()
		r.tidy()
	})
	return nil
}
