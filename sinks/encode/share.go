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
	from  int32 // encoders of a key, from which on is kept
	used  atomic.Int64

	mu    sync.Mutex
	users map[any]*atomic.Int32 // encoders by key
}

// NewShare returns a Share of at most about limit bytes; beyond it each encodes for itself.
func NewShare(limit int) *Share {
	return &Share{limit: int64(limit), from: 2, users: map[any]*atomic.Int32{}}
}

// NewEagerShare returns a Share that keeps what a single encoder makes, too: for one that many use.
func NewEagerShare(limit int) *Share {
	s := NewShare(limit)
	s.from = 1
	return s
}

// join counts one more encoder of that key, and returns the count.
func (s *Share) join(key any) *atomic.Int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.users[key]
	if n == nil {
		n = new(atomic.Int32)
		s.users[key] = n
	}
	n.Add(1)
	return n
}

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
	// What one alone wants is not worth keeping: fresh memory for it costs more than encoding in memory
	// that is warm (a fifth of all CPU time with one pull subscriber).
	if e.o.Share == nil || e.users.Load() < e.o.Share.from {
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

// bufferPool keeps byte slices by size. Classes are a quarter of an octave apart: with whole octaves half of
// what is shared was air.
type bufferPool struct{ classes [4 * 24]sync.Pool }

var buffers bufferPool

// classSize is the least capacity in a class: 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, …
func classSize(class int) int { return (4 + class%4) << (class / 4) }

func (p *bufferPool) get(n int) []byte {
	class := 0
	if n > classSize(0) { // the class of the next size that is no smaller
		shift := bits.Len(uint(n-1)) - 3
		class = 4*shift + (n-1)>>shift - 3
	}
	if class < len(p.classes) {
		if b, _ := p.classes[class].Get().(*[]byte); b != nil {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, classSize(class))
}

func (p *bufferPool) put(b []byte) {
	if cap(b) < classSize(0) {
		return
	}
	shift := bits.Len(uint(cap(b))) - 3
	if class := 4*shift + cap(b)>>shift - 4; class < len(p.classes) {
		b = b[:0]
		p.classes[class].Put(&b)
	}
}
