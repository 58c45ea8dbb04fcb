package snapshot

import (
	"bytes"
	"slices"

	"github.com/leat-cdc/leat/pipeline"
)

const (
	// remembered is how many transactions are remembered, and mostRemembered while windows need them.
	remembered     = 1 << 16
	mostRemembered = 1 << 18
)

// history remembers which transactions the stream has brought, by batch: one that a later read did not see although
// it had ended before the read's low watermark was committed in the log, but not visible yet.
type history struct {
	entries []past
	next    uint64 // number of the next entry
	txs     int
	look    int  // when there are so many, it is looked at which are needed
	lost    bool // more than can be remembered
}

// past is a batch that was handed out.
type past struct {
	number uint64
	ids    []byte // of its transactions, each behind a zero byte
	txs    int
	tables []string
	// seen is not 0 when a read saw all of it: how many windows there had been by then. Reads of later windows see it too.
	seen uint64
}

// add notes the transactions of b; tables are those that its chunks touched.
func (h *history) add(b *pipeline.Batch, tables []string) {
	if len(b.Txs) == 0 {
		return
	}
	p := past{number: h.next, txs: len(b.Txs), tables: tables}
	h.next++
	for _, tx := range b.Txs {
		if tx.ID.Present() {
			p.ids = append(append(p.ids, 0), b.Bytes(tx.ID)...)
		}
	}
	for _, t := range b.Tables {
		p.tables = append(p.tables, t.Subject())
	}
	h.entries = append(h.entries, p)
	h.txs += p.txs
}

// bound keeps no more than can be: what windows need goes last.
func (s *stream) bound() {
	h := &s.history
	if h.txs <= max(remembered, h.look) {
		return
	}
	s.review()
	h.look = 2 * h.txs
	most := remembered
	if len(s.windows) > 0 {
		most = mostRemembered
	}
	for h.txs > most && len(h.entries) > 1 {
		h.lost = true // all that are left are needed, or may be
		h.txs -= h.entries[0].txs
		h.entries[0] = past{}
		h.entries = h.entries[1:]
	}
}

// review lets each window that was read say what it saw, so that what nobody needs any more is forgotten. One that
// missed a transaction of its table which stood before it in the log is void. The mutex is held.
func (s *stream) review() {
	h := &s.history
	waiting := s.numbers + 1 // the oldest window that is not read yet
	var read []*window
	for _, w := range s.windows {
		if w.chunk != nil {
			read = append(read, w)
		} else {
			waiting = min(waiting, w.number)
		}
	}
	kept := h.entries[:0]
	for i := range h.entries {
		p := &h.entries[i]
		for _, w := range read {
			before := !w.opened || p.number < w.past
			switch unseen := w.chunk.Unseen; {
			case unseen == nil && !before:
			case unseen == nil || !p.missed(unseen):
				if p.seen == 0 {
					p.seen = s.numbers
				}
			case before && w.void == "" && slices.Contains(p.tables, w.table.subject):
				w.void = "a transaction that stands in the log was not visible yet, as one that waits for a standby is"
			}
		}
		if p.seen != 0 && p.seen < waiting {
			h.txs -= p.txs
			continue
		}
		kept = append(kept, *p)
	}
	clear(h.entries[len(kept):])
	h.entries = kept
}

func (p *past) missed(unseen func(id []byte) bool) bool {
	for ids := p.ids; len(ids) > 0; {
		ids = ids[1:]
		n := bytes.IndexByte(ids, 0)
		if n < 0 {
			n = len(ids)
		}
		if unseen(ids[:n]) {
			return true
		}
		ids = ids[n:]
	}
	return false
}

func (h *history) forget() { *h = history{next: h.next} }
