package ingest

import (
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// plan is what ingest knows of one table version.
type plan struct {
	table       *schemas.Table
	form        *cell.Form
	space       uint64
	upTo        int   // columns to walk
	watched     []int // identity and routing columns
	quarantined bool
	waits       bool // its quarantine ends when no transaction is prepared any more
}

// catalog maps the source's table versions to the log's.
type catalog struct {
	cfg     Config
	bySrc   map[*schemas.Table]*plan
	newest  map[string]*schemas.Table // by subject
	maxID   uint32
	quarant map[string]held // by subject
	open    map[string]*openTx
	// preparing are transactions that were prepared on this stream and have not ended: the log may not have them durable.
	preparing map[string]bool
	pending   []pipeline.Notice
	buf       []*plan
}

func newCatalog(cfg Config) *catalog {
	c := &catalog{cfg: cfg, bySrc: map[*schemas.Table]*plan{}, newest: map[string]*schemas.Table{}, quarant: map[string]held{}, open: map[string]*openTx{}, preparing: map[string]bool{}}
	for _, t := range cfg.Log.Tables() {
		c.newest[t.Subject()] = t
		c.maxID = max(c.maxID, t.ID)
	}
	for _, n := range cfg.Log.Notices() {
		c.note(n)
	}
	return c
}

func (c *catalog) takeNotices() []pipeline.Notice {
	n := c.pending
	c.pending = nil
	return n
}

// plans returns the plan of each of the batch's tables, by index; valid until the next call.
func (c *catalog) plans(b *pipeline.Batch) []*plan {
	c.buf = c.buf[:0]
	for _, t := range b.Tables {
		p := c.bySrc[t]
		if p == nil {
			p = c.adopt(t, firstPosition(b))
			c.bySrc[t] = p
		} else if p.waits && p.quarantined {
			c.known(p, firstPosition(b))
		}
		c.buf = append(c.buf, p)
	}
	return c.buf
}

// adopt gives the source's table the log's id and version: the newest one when the shape is the same.
func (c *catalog) adopt(src *schemas.Table, position string) *plan {
	t := *src
	p := &plan{table: &t}
	_, p.quarantined = c.quarant[src.Subject()]
	routeErr := c.cfg.Route.apply(&t)
	if old := c.newest[t.Subject()]; old != nil && old.ShapeHash() == t.ShapeHash() {
		p.table = old
	} else {
		t.ID, t.Version = c.maxID+1, 1
		if old != nil {
			t.ID, t.Version = old.ID, old.Version+1
		}
		c.maxID = max(c.maxID, t.ID)
		c.newest[t.Subject()] = t.Seal()
	}
	p.form = c.cfg.Form(p.table)
	p.space = partition.SpaceHash(p.table.KeySpace)
	p.watched = watched(p.table)
	for _, i := range p.watched {
		p.upTo = max(p.upTo, i+1)
	}
	switch {
	case routeErr != nil && !p.quarantined:
		c.quarantine(faultOf(p, position, routeErr))
		p.quarantined = true // it is not among the plans yet
	case routeErr == nil && p.quarantined && t.Wire != schemas.WireNone:
		c.known(p, position)
	}
	return p
}

func watched(t *schemas.Table) []int {
	all := append([]int(nil), t.Identity...)
	for _, r := range t.Routing {
		known := false
		for _, i := range t.Identity {
			known = known || i == r
		}
		if !known {
			all = append(all, r)
		}
	}
	return all
}
