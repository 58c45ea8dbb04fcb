package encode

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/leat-cdc/leat/pipeline"
)

// Share bounds the memory of what is kept encoded for all who want the same. Nil keeps nothing.
type Share struct {
	limit int64
	used  atomic.Int64
}

// NewShare returns a Share of at most about limit bytes; beyond it each encodes for itself.
func NewShare(limit int) *Share { return &Share{limit: int64(limit)} }

// Used returns how many bytes are kept now.
func (s *Share) Used() int { return int(s.used.Load()) }

// chunkEvents is how many events are encoded and shared together: enough to copy in one go, few enough
// that one who needs half of them does not pay for many others.
const chunkEvents = 128

// fragments are a batch's events encoded in one format, made chunk by chunk by whoever needs one first.
type fragments struct {
	share  *Share
	held   atomic.Int64
	chunks []chunk
}

type chunk struct {
	mu    sync.Mutex
	ready atomic.Bool
	buf   []byte
	ends  []uint32 // where each event ends in buf; an event with an error is empty
	errs  []*EventError
}

var fragmentPool = sync.Pool{New: func() any { return new(fragments) }}

// Size implements pipeline.Derived.
func (f *fragments) Size() int { return int(f.held.Load()) }

// Free implements pipeline.Derived.
func (f *fragments) Free() {
	for i := range f.chunks {
		c := &f.chunks[i]
		if !c.ready.Load() {
			continue
		}
		buffers.put(c.buf)
		c.buf, c.ends = nil, c.ends[:0]
		clear(c.errs)
		c.errs = c.errs[:0]
		c.ready.Store(false)
	}
	f.share.used.Add(-f.held.Swap(0))
	f.share = nil
	fragmentPool.Put(f)
}

// fragmentsOf returns what is shared of b, nil when nothing is.
func (e *Encoder) fragmentsOfBatch(b *pipeline.Batch) *fragments {
	if e.o.Share == nil {
		return nil
	}
	d, err := b.Derive(e.key, e.build)
	if err != nil {
		return nil
	}
	return d.(*fragments)
}

// newFragments is e.build: a field, so that it is not made anew for each batch.
func (e *Encoder) newFragments(b *pipeline.Batch) (pipeline.Derived, error) {
	f := fragmentPool.Get().(*fragments)
	f.share = e.o.Share
	n := (len(b.Events) + chunkEvents - 1) / chunkEvents
	if cap(f.chunks) < n {
		f.chunks = make([]chunk, n)
	}
	f.chunks = f.chunks[:n]
	return f, nil
}

// chunk returns the n-th chunk, encoding it when needed; nil when there is no memory to share.
func (e *Encoder) chunk(f *fragments, b *pipeline.Batch, n int, st *state) *chunk {
	c := &f.chunks[n]
	if c.ready.Load() {
		return c
	}
	if f.share.used.Load() >= f.share.limit {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready.Load() {
		return c
	}
	from, to := n*chunkEvents, min((n+1)*chunkEvents, len(b.Events))
	buf := buffers.get((to - from) * int(e.size.Load()))
	for i := from; i < to; i++ {
		out, err := st.append(buf, b, i, pipeline.OpNone)
		buf = out
		if err != nil {
			c.errs = append(c.errs, err.(*EventError))
		}
		c.ends = append(c.ends, uint32(len(buf)))
	}
	c.buf = buf
	e.measure(len(buf), to-from)
	f.held.Add(int64(cap(buf)))
	f.share.used.Add(int64(cap(buf)))
	c.ready.Store(true)
	return c
}

// measure notes how large events are, so that the next buffer seldom grows.
func (e *Encoder) measure(bytes, events int) {
	if events >= 16 {
		e.size.Store(int64(bytes/events*9/8 + 16))
	}
}

// start returns where the i-th event of the chunk begins.
func (c *chunk) start(i int) uint32 {
	if i == 0 {
		return 0
	}
	return c.ends[i-1]
}

// bufferPool keeps byte slices by size: class n holds capacities of at least 1<<n.
type bufferPool struct{ classes [24]sync.Pool }

var buffers bufferPool

func (p *bufferPool) get(n int) []byte {
	class := bits.Len(uint(max(n, 1) - 1))
	if class < len(p.classes) {
		if b, _ := p.classes[class].Get().(*[]byte); b != nil {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, 1<<class)
}

func (p *bufferPool) put(b []byte) {
	if cap(b) == 0 {
		return
	}
	if class := bits.Len(uint(cap(b))) - 1; class < len(p.classes) {
		b = b[:0]
		p.classes[class].Put(&b)
	}
}
