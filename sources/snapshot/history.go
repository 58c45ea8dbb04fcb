package snapshot

import (
	"bytes"

	"github.com/leat-cdc/leat/pipeline"
)

// remembered is how many transactions are remembered.
const remembered = 1 << 16

// history remembers which transactions the stream has brought, by batch: one that a later read did not see although
// it had ended before the read's low watermark was committed in the log, but not visible yet.
type history struct {
	entries []past
	next    uint64 // number of the next entry
	txs     int
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
	for h.txs > remembered && len(h.entries) > 1 {
		h.lost = h.lost || h.entries[0].seen == 0
		h.txs -= h.entries[0].txs
		h.entries[0] = past{}
		h.entries = h.entries[1:]
	}
}

// complete reports whether a read saw every transaction of the table that stood before entry number upTo. windows
// counts those that there have been, oldest is the number of the oldest one under way.
func (h *history) complete(table string, upTo uint64, unseen func(id []byte) bool, windows, oldest uint64) bool {
	if unseen == nil {
		return true
	}
	ok, kept := true, h.entries[:0]
	for _, p := range h.entries {
		if p.seen != 0 && p.seen < oldest {
			h.txs -= p.txs
			continue
		}
		if p.number < upTo {
			if p.missed(unseen) {
				for _, t := range p.tables {
					ok = ok && t != table
				}
			} else if p.seen == 0 {
				p.seen = windows
			}
		}
		kept = append(kept, p)
	}
	clear(h.entries[len(kept):])
	h.entries = kept
	return ok
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
