package disklog

import (
	"sync"
	"sync/atomic"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// group is what readers who fell behind share while they are near one another: runs of batches that one of them has
// decoded from a segment, for the others to take, the newest of them up to a bound. Who wants the very run that
// another decodes waits for that, which ends by itself; nobody waits for another to come, so who is too far away
// decodes for itself.
type group struct {
	max  int64 // bytes of all; 0: nothing is shared
	cell int64 // runs end where a segment's next multiple of this begins, so that those of all readers do

	mu    sync.Mutex
	ended sync.Cond // a claim has
	// kept runs, by the place where whoever decoded it stood: nothing visible lies between that and the first batch.
	// Nil: it is claimed.
	kept   map[place]*run
	order  []*run // those kept, the oldest first
	head   int    // of order
	size   int64
	pieces [4]piece // the newest bytes that were read
	turn   int
}

// run is consecutive batches. Each that holds it has a reference.
type run struct {
	from, next place
	batches    []*pipeline.Batch
	size       int64
	refs       atomic.Int32
}

var runs = sync.Pool{New: func() any { return new(run) }}

func (u *run) release() {
	if u.refs.Add(-1) == 0 {
		release(u.batches)
		clear(u.batches)
		u.batches, u.size = u.batches[:0], 0
		runs.Put(u)
	}
}

// piece is some bytes of a segment.
type piece struct {
	seq  uint64
	at   int64
	have int
	buf  *buffer
}

func (g *group) init(memory int64) {
	g.max, g.kept = memory, map[place]*run{}
	for g.cell = 256 << 10; g.cell > g.max/8; {
		g.cell /= 2
	}
	if g.cell < record.Align {
		g.max = 0
	}
	g.ended.L = &g.mu
}

// take returns the run that follows p, with a reference. Nil: the caller has claimed it, decodes it, and says so with
// put, whatever comes of it.
func (g *group) take(p place) *run {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		u, ok := g.kept[p]
		if !ok {
			g.kept[p] = nil
			return nil
		}
		if u != nil {
			u.refs.Add(1)
			return u
		}
		g.ended.Wait()
	}
}

// put ends the claim on p and keeps u, if there is one.
func (g *group) put(p place, u *run) {
	g.mu.Lock()
	delete(g.kept, p)
	g.ended.Broadcast()
	if u != nil && u.size <= g.max/2 {
		if _, ok := g.kept[u.from]; !ok {
			u.refs.Add(1)
			g.kept[u.from] = u
			g.order = append(g.order, u)
			g.size += u.size
		}
	}
	g.evict(g.max)
}

// evict forgets the oldest runs until all take at most max bytes. It gives back g.mu, which is held.
func (g *group) evict(max int64) {
	from := g.head
	for ; g.size > max && g.head < len(g.order); g.head++ {
		u := g.order[g.head]
		delete(g.kept, u.from)
		g.size -= u.size
	}
	drop := append([]*run(nil), g.order[from:g.head]...) // others append to order while these are released
	clear(g.order[from:g.head])
	if g.head > 64 && g.head*2 > len(g.order) {
		g.order, g.head = append([]*run(nil), g.order[g.head:]...), 0
	}
	g.mu.Unlock()
	for _, u := range drop {
		u.release()
	}
}

// clear forgets all but claims.
func (g *group) clear() {
	g.mu.Lock()
	for i := range g.pieces {
		g.drop(i)
	}
	g.evict(0)
}

func (g *group) drop(i int) {
	if old := g.pieces[i].buf; old != nil {
		g.size -= int64(len(old.b))
		old.release()
		g.pieces[i] = piece{}
	}
}

// lend points s at bytes that another stream has read, if there are n of them at off.
func (g *group) lend(s *stream, off int64, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.pieces {
		if p.buf != nil && p.seq == s.seq && p.at <= off && off+int64(n) <= p.at+int64(p.have) {
			p.buf.refs.Add(1)
			s.drop()
			s.buf, s.at, s.have = p.buf, p.at, p.have
			return true
		}
	}
	return false
}

// borrow keeps what s has read, for others. None of it is written any more.
func (g *group) borrow(s *stream) {
	if int64(len(s.buf.b)) > g.max/8 {
		return
	}
	g.mu.Lock()
	g.drop(g.turn)
	s.buf.refs.Add(1)
	g.pieces[g.turn] = piece{seq: s.seq, at: s.at, have: s.have, buf: s.buf}
	g.turn = (g.turn + 1) % len(g.pieces)
	g.size += int64(len(s.buf.b))
	g.evict(g.max)
}

// lookEvery is how many bytes a reader goes on before it looks again who is near.
const lookEvery = 64 << 10

// look finds whether other readers of segments are near r. l.mu is held.
func (r *reader) look() {
	if r.marked && r.at.address-r.mark < lookEvery {
		return
	}
	r.mark, r.marked = r.at.address, true
	var near *group
	for o := range r.l.mu.readers {
		if r.l.group.max > 0 && o != r && o.seg != nil && r.l.apart(o.mark, r.mark) <= r.l.group.max {
			near = &r.l.group
			break
		}
	}
	r.near, r.in.group = near, near
}

// apart is about how many bytes of segments lie between two addresses that are kept. l.mu is held.
func (l *Log) apart(a, b uint64) int64 {
	if a > b {
		a, b = b, a
	}
	from, i := split(a)
	to, j := split(b)
	oldest := l.mu.segs[0].seq
	switch {
	case from == to:
		return j - i
	case from+1 == to && from >= oldest:
		return max(0, l.mu.segs[from-oldest].end-i) + j - firstBlock
	}
	return 1<<63 - 1
}

// share takes the run that r.near has, or else decodes it for all. Without one and without an error, what follows
// may be in the ring.
func (r *reader) share() error {
	p := r.stood
	u := r.near.take(p)
	if u != nil {
		r.pass(u.next)
		r.run = u
		return nil
	}
	u, err := r.decode()
	r.near.put(p, u)
	r.run = u
	return err
}

// decode reads up to the end of the cell of the segment, or one chunk of a transaction. After a batch there is no
// error: who comes there again sees it.
func (r *reader) decode() (*run, error) {
	cell := uint64(r.near.cell)
	var u *run
	asked := r.from
	defer func() { r.from = asked }()
	for u == nil || r.at.chunk == 0 && r.at.address/cell == u.from.address/cell {
		b, err := r.read()
		if b == nil && u == nil {
			return nil, err
		}
		if b == nil {
			break
		}
		if u == nil {
			u = runs.Get().(*run)
			u.refs.Store(1)
			u.from = r.was
		}
		r.from = b.Next()
		u.batches, u.size, u.next = append(u.batches, b), u.size+size(b), r.at
	}
	return u, nil
}

// taken hands out the next batch of r.run that is wanted.
func (r *reader) taken() *pipeline.Batch {
	u := r.run
	for r.used < len(u.batches) {
		b := u.batches[r.used]
		r.used++
		if !skips(b.Base, len(b.Events), r.from) {
			b.Retain()
			return b
		}
	}
	r.dropRun()
	return nil
}

func (r *reader) dropRun() {
	if r.run != nil {
		r.run.release()
		r.run, r.used = nil, 0
	}
}

// pass goes on at next without reading.
func (r *reader) pass(next place) {
	if c := r.commit; c != nil {
		if next.address == r.at.address && next.chunk >= r.at.chunk {
			for _, ch := range c.chunks[r.at.chunk:next.chunk] {
				c.before += ch.Events
			}
		} else {
			r.l.mu.Lock()
			r.dropCommit()
			r.l.mu.Unlock()
		}
	}
	r.at, r.stood = next, next
}
