package ingest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Codes of the quarantines that ingest gives.
const (
	codeRoute     = "route"     // the routing key cannot be had: taken back by itself once it can
	codeStructure = "structure" // a row's bytes do not fit the table's shape
	codeLarge     = "large"     // a row or a message is more than a block of the log holds
)

// held is why a table's rows do not enter the log.
type held struct {
	code string
	// shape: its shape could not be had; it ends when the source hands the table over on a stream that began since.
	shape bool
	// here: the source said so on the stream that is open, and hands over no row until it takes that back.
	here bool
}

// told goes through a source's notices. One of a table that is quarantined already leaves it where it was, and the
// source takes back nothing but shapes: what rows are missing of, a person lets in again. Nor are shapes taken back while
// prepared transactions wait, as with known, which looks again with the table's next rows.
func (c *catalog) told(all []pipeline.Notice) []pipeline.Notice {
	kept := all[:0]
	for _, n := range all {
		h, is := c.quarant[n.Table]
		closed := slices.ContainsFunc(kept, func(o pipeline.Notice) bool {
			return o.Kind == pipeline.NoticeQuarantined && o.Table == n.Table && !o.OfShape()
		})
		again := slices.ContainsFunc(kept, func(o pipeline.Notice) bool { return o.Kind == pipeline.NoticeReleased && o.Table == n.Table })
		switch {
		case n.Kind == pipeline.NoticeQuarantined && is && !again && (h.shape == n.OfShape() || !h.shape):
			h.here = true
			c.quarant[n.Table] = h
			continue
		case n.Kind == pipeline.NoticeReleased && (closed || is && !h.shape):
			continue
		case n.Kind == pipeline.NoticeReleased && is && c.waiting():
			h.here = false
			c.quarant[n.Table] = h
			for _, p := range c.bySrc {
				p.waits = p.waits || p.table.Subject() == n.Table
			}
			continue
		}
		kept = append(kept, n)
	}
	clear(all[len(kept):])
	return kept
}

func (c *catalog) note(n pipeline.Notice) {
	switch n.Kind {
	case pipeline.NoticeQuarantined:
		c.quarant[n.Table] = held{code: n.Code, shape: n.OfShape(), here: true}
	case pipeline.NoticeReleased:
		delete(c.quarant, n.Table)
	default:
		return
	}
	for _, p := range c.bySrc {
		if p.table.Subject() == n.Table {
			_, p.quarantined = c.quarant[n.Table]
		}
	}
}

// closed notes the quarantines of a batch whose rows were gone through: the source hands over no row behind its own.
func (c *catalog) closed(all []pipeline.Notice) {
	for i, n := range all {
		if n.Kind == pipeline.NoticeQuarantined && !slices.ContainsFunc(all[i:], func(o pipeline.Notice) bool { return o.Kind == pipeline.NoticeReleased && o.Table == n.Table }) {
			c.note(n)
		}
	}
}

// anew forgets what belongs to the stream that ended: its tables, and its transactions, which the next sends whole.
func (c *catalog) anew() {
	clear(c.bySrc)
	clear(c.open)
	clear(c.preparing) // the log has them durable by now
	for table, h := range c.quarant {
		h.here = false
		c.quarant[table] = h
	}
}

// known ends a quarantine of a table whose shape could not be had, as here it is; a gap is left behind. Not while
// prepared transactions wait in the log: rows of the table that they lack would come never.
func (c *catalog) known(p *plan, position string) {
	h := c.quarant[p.table.Subject()]
	if !h.shape || h.here {
		return
	}
	if p.waits = c.waiting(); p.waits {
		return
	}
	p.quarantined = false
	c.release(p.table.Subject(), h.code, position, "its shape is known again")
}

// waiting reports whether prepared transactions wait for their commit.
func (c *catalog) waiting() bool { return len(c.preparing) > 0 || len(prepared(c.cfg.Log)) > 0 }

// prepared are the transactions whose chunks wait in the log for a commit of which nobody knows when it comes.
func prepared(log pipeline.Log) []string {
	if k, ok := log.(pipeline.PreparedKeeper); ok {
		return k.Prepared()
	}
	return nil
}

// release takes back a quarantine, and leaves a gap behind.
func (c *catalog) release(table, code, position, why string) {
	n := pipeline.Notice{Kind: pipeline.NoticeReleased, Code: code, Table: table, Position: position, Time: time.Now().UTC(), Reason: why}
	c.note(n)
	c.pending = append(c.pending, n, gapOf(table, code, position, "changes before this place did not enter the log, as it was quarantined"))
}

func gapOf(table, code, position, why string) pipeline.Notice {
	return pipeline.Notice{Kind: pipeline.NoticeGap, Code: code, Table: table, Position: position, Time: time.Now().UTC(), Reason: why, Cure: pipeline.BringRows}
}

// faultOf is the notice of a table whose row or shape cannot be taken.
func faultOf(p *plan, position string, err error) pipeline.Notice {
	n := pipeline.Notice{Kind: pipeline.NoticeQuarantined, Table: p.table.Subject(), Position: position, Reason: err.Error(), Time: time.Now().UTC(), Code: codeStructure,
		Cure: "mend the cause; then " + pipeline.BringRows}
	var re *RouteError
	if errors.As(err, &re) {
		n.Code, n.Reason, n.Cure = codeRoute, re.What, strings.TrimSuffix(re.Cure, ";")
	}
	if le := (*LargeError)(nil); errors.As(err, &le) {
		n.Code, n.Cure = codeLarge, "leave the large columns out with columns: or the table with tables:, or keep such values outside of the database; then "+pipeline.BringRows
	}
	return n
}

// quarantine stops reading the table at this place; other tables go on.
func (c *catalog) quarantine(n pipeline.Notice) {
	c.note(n)
	h := c.quarant[n.Table]
	h.here = false // ours: a table that is handed over in another shape is looked at again
	c.quarant[n.Table] = h
	c.pending = append(c.pending, n)
}

// fault is a row that cannot be taken: it quarantines its table, of a transaction that is open when that commits.
func (r *rows) fault(b *pipeline.Batch, e *pipeline.Event, p *plan, err error) {
	n := faultOf(p, txPosition(b, e), err)
	if r.open == nil {
		r.catalog.quarantine(n)
		return
	}
	r.open.add(n, partOf(b, e))
}
