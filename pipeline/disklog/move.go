package disklog

import (
	"errors"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// A transaction that stays open (its client idles, or it was prepared and forgotten) must not keep the log from
// letting old segments go: read on, its end would come. When retention could take segments but for the chunks of such
// ones, the writer writes these once more at the log's end. What commits or prepares a transaction names its chunks by
// address, so the copies are the transaction's from then on and nobody ever sees two. A crash leaves the old ones, the
// copies, or both: which of them count says the last block that prepares the transaction, or the last catalog; those
// of one that was not prepared all go, as the source sends it again. Old segments go when that block is durable.

// moveSlice is about how many bytes are moved between two groups of what is appended meanwhile.
const moveSlice = 4 << 20

// pins is what transactions that have not ended hold in the log.
type pins struct {
	first uint64 // number of the first segment that they need; 0: none
	held  pipeline.Unended
}

// pins looks at all of them: few, as each is larger than a batch.
func (w *writer) pins() (p pins) {
	most := int64(0)
	for open, tx := range w.st.open {
		p.need(tx)
		p.held.Open += tx.bytes
		if tx.bytes > most {
			most, p.held.Most = tx.bytes, open
		}
	}
	for _, tx := range w.st.prepared {
		p.need(tx)
		p.held.Prepared += tx.bytes
	}
	return p
}

func (p *pins) need(tx *openTx) {
	if tx.first > 0 && (p.first == 0 || tx.first < p.first) {
		p.first = tx.first
	}
}

// Unended implements pipeline.Holder.
func (l *Log) Unended() pipeline.Unended {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.mu.pins.held
	h.Bound = l.sizeBound() / 2
	h.Pinned = l.mu.pins.first > 0 && l.expiredBut(0) > l.expired()
	return h
}

// overdue is the number of the segment before which chunks of open transactions are in retention's way, 0 when they
// are not. Where they are more than half of the log nothing is moved: that would be to write it over and over. Such a
// log grows to twice of what they hold. l.mu is held.
func (l *Log) overdue() uint64 {
	p := &l.mu.pins
	if p.first == 0 || l.mu.moving || l.sizeFrom(0) < 2*(p.held.Open+p.held.Prepared) {
		return 0
	}
	n := l.expiredBut(0)
	if n <= l.expired() || l.mu.segs[n].seq <= l.mu.fixed {
		return 0
	}
	return l.mu.segs[n].seq
}

// mover reads the chunks that are to be moved.
type mover struct {
	w    *writer
	left int64 // bytes of this slice
	seg  *segment
	in   stream
	b    *pipeline.Batch
}

// move writes a slice of the chunks before a segment again, and asks for the next one.
func (w *writer) move(before uint64) error {
	m := &mover{w: w, left: moveSlice, b: new(pipeline.Batch)}
	defer m.letGo()
	for _, tx := range w.st.open {
		if err := m.tx(tx, before); err != nil {
			return err
		}
		tx.first = tx.lowest()
	}
	for open, tx := range w.st.prepared {
		was := m.left
		if err := m.tx(tx, before); err != nil {
			return err
		}
		if m.left < was {
			if err := w.prepareAgain(open, tx); err != nil {
				return err
			}
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	if w.l.mu.moving = m.left <= 0 && !w.l.mu.drain; w.l.mu.moving {
		w.l.mu.queue = append(w.l.mu.queue, item{move: before})
		poke(w.l.work)
		return nil
	}
	if w.l.mu.pins.first < before && w.l.mu.pins.first > 0 {
		w.l.mu.fixed = before // one is stuck: it is not asked for again
	}
	poke(w.l.prepare)
	return nil
}

// gather moves the chunks of a transaction that is about to commit to its commit, when they are little and far behind:
// retention would have to take all between as one.
func (w *writer) gather(open string) error {
	tx := w.st.ending(open)
	if tx.first == 0 || w.seg.seq-tx.first < mostTangled || tx.bytes > w.l.opt.SegmentSize {
		return nil
	}
	m := &mover{w: w, b: new(pipeline.Batch)}
	defer m.letGo()
	for before := w.seg.seq; m.left <= 0; {
		m.left = moveSlice
		if err := m.tx(tx, before); err != nil {
			return err
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.st.open[open] == tx { // of a prepared one the old chunks count until the commit is durable
		tx.first = tx.lowest()
	}
	return nil
}

// tx moves chunks of one transaction while the slice lasts.
func (m *mover) tx(tx *openTx, before uint64) error {
	if tx.first == 0 || tx.first >= before || tx.stuck {
		return nil
	}
	for _, c := range tx.chunks {
		if m.left <= 0 {
			return nil
		}
		if seq, _ := split(c.Address); seq >= before {
			continue
		}
		h, block, err := m.read(c)
		if err != nil { // the log is what it was; who reads the transaction once is told as well
			if tx.stuck = damaged(err); !tx.stuck && tx.told { // else the next turn tries again
				return nil
			}
			tx.told = true
			m.w.l.opt.Observer.Warned("log of "+m.w.l.opt.Source, "old segments stay while a transaction is open that cannot be moved out of them: "+err.Error(), "`leat log verify` shows the damage; end the transaction in the database")
			return nil
		}
		if err := m.w.copied(c, &h, block[h.Length:h.Length+h.Payload], m.b.Tables); err != nil {
			return err
		}
		m.left -= int64(h.Size())
	}
	return nil
}

// damaged: it is what was read, not the reading, that is wrong.
func damaged(err error) bool {
	var d *DamageError
	var i *record.InvalidError
	var n *record.NewerError
	return bad(err) || errors.As(err, &d) || errors.As(err, &i) || errors.As(err, &n)
}

// read returns the block of a chunk, valid until the next call, and its tables in m.b.
func (m *mover) read(c *chunk) (record.Header, []byte, error) {
	l := m.w.l
	seq, off := split(c.Address)
	l.mu.Lock()
	if m.seg == nil || m.seg.seq != seq {
		m.giveBack()
		if err := l.acquire(seq, 0, &m.seg, &m.in); err != nil {
			l.mu.Unlock()
			return record.Header{}, nil, err
		}
	}
	limit := m.seg.end
	l.mu.Unlock()
	h, block, err := m.in.block(off, limit)
	if err == nil && (h.Kind != record.KindChunk || uint64(h.Events) != c.Written()) {
		err = &record.InvalidError{What: "no chunk where one was written"}
	}
	if err == nil {
		_, err = record.Decode(block, &h, m.b, l.resolver(m.seg, &m.in), nil)
	}
	if err != nil {
		return h, nil, fmt.Errorf("%s, byte %d: %w", m.in.name, off, err)
	}
	return h, block, nil
}

// giveBack lets go of the segment that is read. l.mu is held.
func (m *mover) giveBack() {
	if m.seg != nil {
		m.w.l.letGo(m.seg, &m.in)
		m.seg = nil
	}
}

func (m *mover) letGo() {
	m.w.l.mu.Lock()
	defer m.w.l.mu.Unlock()
	m.giveBack()
}

// copied adds a copy of a chunk to the group, which is the chunk from now on.
func (w *writer) copied(c *chunk, old *record.Header, payload []byte, tables []*schemas.Table) error {
	block := int64(old.Size())
	for {
		shapes, need, err := w.missing(tables)
		if err != nil {
			return err
		}
		slack := int64(len(tables)) * 12
		if !w.fits(need+block, slack) {
			if err := w.roll(); err != nil {
				return err
			}
			continue
		}
		w.slack += slack
		w.again += need + block
		for _, sh := range shapes {
			w.addSchema(sh.payload, sh.table)
		}
		break
	}
	h := w.header(record.KindChunk)
	h.Flags, h.Events, h.Time, h.Version = old.Flags, old.Events, old.Time, old.Version
	w.pieces = append(w.pieces, record.AppendBlock(make([]byte, 0, block), payload, &h))
	w.bytes += block
	w.fresh = false
	c.Address = h.Address
	return nil
}

// prepareAgain says where the chunks of a prepared transaction are now. Until that is durable the old ones count.
func (w *writer) prepareAgain(open string, tx *openTx) error {
	b := pipeline.NewBatch()
	b.Kind, b.Open, b.End = pipeline.BatchPrepared, open, w.st.last
	it := item{b: b, ticket: w.st.ticket, base: w.st.next}
	for {
		ok, err := w.add(&it)
		if err != nil {
			it.release()
			return err
		}
		if ok {
			return nil
		}
		if err := w.roll(); err != nil {
			it.release()
			return err
		}
	}
}
