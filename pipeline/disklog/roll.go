package disklog

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// first makes the first segment of a new log.
func (w *writer) first() error {
	p, err := w.l.makeOnOpening(w.l.firstSize())
	if err != nil {
		return err
	}
	return w.begin(p, 1, 0)
}

// continueIn goes on in the recovered last segment.
func (w *writer) continueIn(s *segment, fd *found) {
	w.seg, w.pos, w.proven = s, s.end, address(s.seq, fd.proven)
	w.epoch = epochOf(s.seq, fd.opening)
	w.has = map[versionKey]bool{}
	for k := range s.index.at {
		w.has[k] = true
	}
}

// rewriteTail writes the blocks behind the proof again and syncs them: after a failed sync the system's
// cache may show what the disk does not have.
func (w *writer) rewriteTail(proven int64) error {
	for off := proven; off < w.pos; {
		p := make([]byte, min(w.pos-off, readAhead))
		if err := readFull(w.seg.file, p, off); err != nil {
			return fmt.Errorf("read %s: %w", w.seg.name, err)
		}
		if err := w.seg.file.WriteVec([][]byte{p}, off); err != nil {
			return fmt.Errorf("write %s again: %w", w.seg.name, err)
		}
		off += int64(len(p))
	}
	if err := w.seg.file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", w.seg.name, err)
	}
	w.proven = w.address()
	return nil
}

// reopen writes the record of this opening, in a new segment when the last one is sealed or full.
func (w *writer) reopen(sealed bool) error {
	e := record.Epoch{Epoch: w.epoch + 1, Time: w.l.opt.Now().UnixMicro()}
	full := w.pos+int64(record.HeaderSize+64)+int64(w.seg.index.footerSize()) > w.seg.size
	if sealed || full {
		if !sealed {
			if err := w.seal(); err != nil {
				return err
			}
		}
		w.seg.sealed = true
		p, err := w.l.makeOnOpening(w.l.nextSize(w.seg.size))
		if err != nil {
			return err
		}
		return w.begin(p, w.seg.seq+1, w.address())
	}
	h := w.header(record.KindEpoch)
	w.pieces = append(w.pieces, record.AppendBlock(nil, record.AppendEpoch(nil, e), &h))
	w.bytes = int64(h.Size())
	w.epoch = e.Epoch
	return w.flush()
}

// seal writes the footer and the mark that nothing follows.
func (w *writer) seal() error {
	h := w.header(record.KindFooter)
	block := record.AppendBlock(nil, record.AppendFooter(nil, &w.seg.index.Footer), &h)
	if err := w.put([][]byte{block}, w.pos); err != nil {
		return err
	}
	s := seal{Seq: w.seg.seq, End: w.pos, Footer: int64(len(block))}
	if err := w.put([][]byte{s.bytes()}, sealAt); err != nil {
		return err
	}
	if err := w.seg.file.Sync(); err != nil {
		return fmt.Errorf("seal %s: %w", w.seg.name, err)
	}
	return nil
}

// roll seals the active segment and begins the next.
func (w *writer) roll() error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.seal(); err != nil {
		return err
	}
	p, err := w.l.takePrepared()
	if err != nil {
		return err
	}
	return w.begin(p, w.seg.seq+1, w.address())
}

// mostTangled segments in a row may hold parts of transactions that began in the one before.
const mostTangled = 3

// untangle begins a segment between two transactions when retention could cut nowhere in the last ones: a log of
// nothing but transactions that are larger than a segment would never shrink otherwise. Open ones that idle do not
// matter: retention moves them.
func (w *writer) untangle() error {
	if !w.torn || w.inside() {
		return nil
	}
	w.torn = false
	if err := w.flush(); err != nil {
		return err
	}
	if w.fresh || w.l.tangled() < mostTangled {
		return nil
	}
	return w.roll()
}

// inside reports whether an open transaction goes on in this segment.
func (w *writer) inside() bool {
	for _, tx := range w.st.open {
		if seq, _ := split(tx.chunks[len(tx.chunks)-1].Address); seq == w.seg.seq {
			return true
		}
	}
	return false
}

// tangled counts the newest segments up to the first that begins between two transactions.
func (l *Log) tangled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	segs := l.mu.segs
	need := segs[len(segs)-1].seq
	for i := len(segs) - 1; i > 0; i-- {
		if need = min(need, segs[i].index.Needs); need >= segs[i].seq {
			return len(segs) - i
		}
	}
	return len(segs)
}

// begin makes a prepared file the active segment: header and catalog are durable before it has its name,
// its name before anything else is written to it.
func (w *writer) begin(p *prepared, seq uint64, prev uint64) (err error) {
	l := w.l
	defer func() {
		if err != nil {
			err = errors.Join(err, p.file.Close())
		}
	}()
	id := uuid.UUID(l.id)
	s := &segment{seq: seq, name: filepath.Join(l.opt.Dir, segName(seq)), file: p.file, size: p.size, end: firstBlock,
		head: segHeader{Seq: seq, Epoch: epochOf(seq, 1), Log: id, Prev: prev, Base: w.st.next, Created: l.opt.Now().UnixMicro()}}
	top := append(s.head.bytes(), make([]byte, sector)...) // with no seal
	old := w.seg
	w.seg, w.pos, w.bytes, w.epoch, w.proven = s, firstBlock, 0, s.head.Epoch, address(seq, firstBlock)
	if err = w.put([][]byte{top}, 0); err == nil {
		err = p.file.Sync()
	}
	if err != nil {
		w.seg = old
		return fmt.Errorf("begin segment: %w", err)
	}
	catalog := w.st.catalog(l.oldest(w.st.next))
	payload, err := record.AppendCatalog(nil, catalog)
	if err == nil {
		h := w.header(record.KindCatalog)
		h.Version = catalog.Format()
		block := record.AppendBlock(nil, payload, &h)
		w.pos += int64(len(block))
		if err = w.put([][]byte{block}, firstBlock); err == nil {
			err = p.file.Sync()
		}
	}
	if err == nil {
		err = l.opt.FS.Rename(p.name, s.name)
	}
	if err == nil {
		err = syncDir(l.opt.FS, l.opt.Dir)
	}
	if err != nil {
		w.seg = old
		return fmt.Errorf("begin segment: %w", err)
	}
	s.index, s.end, s.again, w.fresh = newIndex(seq, w.st.next), w.pos, w.pos-firstBlock, true
	s.size = max(s.size, w.pos)
	w.proven = w.address()
	w.has = map[versionKey]bool{}
	return l.activate(s, old)
}

// oldest is the first offset kept, next of a log without segments.
func (l *Log) oldest(next pipeline.Offset) pipeline.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.segs) == 0 {
		return next
	}
	return l.mu.segs[0].base()
}

// activate adds a segment at the end of the list.
func (l *Log) activate(s, old *segment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.segs = append(l.mu.segs, s)
	if l.mu.ring.empty() {
		l.mu.ring.reset(address(s.seq, s.end), s.head.Base)
	}
	if old == nil {
		return nil
	}
	old.sealed = true
	poke(l.prepare) // there may be something to retire
	if old.refs > 0 {
		return nil
	}
	f := old.file
	old.file = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", old.name, err)
	}
	return nil
}
