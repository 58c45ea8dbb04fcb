package encode

import (
	"github.com/leat-cdc/leat/pipeline"
)

// Gathered is a Delivery's events, encoded. Reused by the caller; valid until the next Gather or Release,
// and no longer than the Delivery.
type Gathered struct {
	// Parts hold the events one behind the other; they alias memory shared with others: never write.
	Parts [][]byte
	// Ends says where each event of the Delivery ends, counted over all Parts; one with an error is empty.
	Ends []uint32
	// Size is the sum of the Parts.
	Size int
	// Errs are the events that cannot be sent, in order.
	Errs []*EventError

	own  []byte
	left int // events of the Delivery not gathered yet
	run  int // index into Parts of the part that own is growing, -1 if none
}

// Release gives the memory back. The Gathered may be used again.
func (g *Gathered) Release() {
	buffers.put(g.own)
	g.own = nil
	g.reset()
}

func (g *Gathered) reset() {
	clear(g.Parts)
	clear(g.Errs)
	g.Parts, g.Ends, g.Errs, g.Size, g.own, g.run = g.Parts[:0], g.Ends[:0], g.Errs[:0], 0, g.own[:0], -1
}

// Gather encodes the Delivery's events into g, taking what others encoded already and leaving to others
// what it encodes, where that is most of a chunk or the Share is eager.
func (e *Encoder) Gather(d *pipeline.Delivery, g *Gathered) {
	e = e.tagged(d.Replay)
	g.reset()
	st := e.state()
	defer e.release(st)
	g.left = 0
	for i := range d.Runs {
		g.left += int(d.Runs[i].To - d.Runs[i].From)
	}
	for i := range d.Runs {
		r := &d.Runs[i]
		if r.As != pipeline.OpNone {
			e.direct(g, st, r.Batch, int(r.From), int(r.To), r.As)
			continue
		}
		e.gatherRun(g, st, r)
	}
}

func (e *Encoder) gatherRun(g *Gathered, st *state, r *pipeline.Run) {
	b := r.Batch
	f := e.fragmentsOfBatch(b)
	if f == nil {
		e.direct(g, st, b, int(r.From), int(r.To), pipeline.OpNone)
		return
	}
	for from := int(r.From); from < int(r.To); {
		n := from / chunkEvents
		first, last := n*chunkEvents, min((n+1)*chunkEvents, len(b.Events))
		to := min(last, int(r.To))
		var c *chunk
		if f.chunks[n].ready.Load() || (to-from)*2 >= last-first || f.share.from == 1 {
			c = e.chunk(f, b, n, st)
		}
		if c == nil {
			e.direct(g, st, b, from, to, pipeline.OpNone)
		} else {
			g.take(c, from-first, to-first, first)
		}
		from = to
	}
}

// take adds events [from, to) of a chunk whose first event is the batch's event first.
func (g *Gathered) take(c *chunk, from, to, first int) {
	start := c.start(from)
	g.left -= to - from
	base := len(g.Ends)
	for _, end := range c.ends[from:to] {
		g.Ends = append(g.Ends, uint32(g.Size)+end-start)
	}
	for _, ee := range c.errs {
		if at := ee.Event - first; at >= from && at < to {
			g.Errs = append(g.Errs, &EventError{Event: base + at - from, Column: ee.Column, Err: ee.Err})
		}
	}
	if part := c.buf[start:c.ends[to-1]]; len(part) > 0 {
		g.Parts = append(g.Parts, part)
		g.Size += len(part)
		g.run = -1
	}
}

// direct encodes events [from, to) into the Delivery's own memory.
func (e *Encoder) direct(g *Gathered, st *state, b *pipeline.Batch, from, to int, as pipeline.Op) {
	if len(g.own) == 0 {
		buffers.put(g.own)
		g.own = buffers.get(g.left * int(e.size.Load()))
	}
	g.left -= to - from
	first := len(g.own)
	start := first
	if g.run >= 0 { // go on with the part that ends here
		start -= len(g.Parts[g.run])
		g.Size -= len(g.Parts[g.run])
		g.Parts = g.Parts[:g.run]
	}
	base := g.Size - start
	for i := from; i < to; i++ {
		out, err := st.append(g.own, b, i, as)
		g.own = out
		if err != nil {
			ee := err.(*EventError)
			ee.Event = len(g.Ends)
			g.Errs = append(g.Errs, ee)
		}
		g.Ends = append(g.Ends, uint32(base+len(g.own)))
	}
	g.run = -1
	e.measure(len(g.own)-first, to-from)
	if len(g.own) > start {
		g.Parts = append(g.Parts, g.own[start:])
		g.Size += len(g.own) - start
		g.run = len(g.Parts) - 1
	}
}

// AppendRange appends the bytes [from, to) of all Parts to dst.
func (g *Gathered) AppendRange(dst []byte, from, to int) []byte {
	at := 0
	for _, p := range g.Parts {
		if at >= to {
			break
		}
		if end := at + len(p); end > from {
			dst = append(dst, p[max(from-at, 0):min(to-at, len(p))]...)
		}
		at += len(p)
	}
	return dst
}
