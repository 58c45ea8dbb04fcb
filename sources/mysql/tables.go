package mysql

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/mysql/internal/ddl"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// shape is one version of a table, as a table map told it.
type shape struct {
	schema, name string
	raw          []byte // the table map's body behind id and flags
	// wanted: its rows are read. The rest is set for wanted tables only.
	wanted bool
	table  *schemas.Table
	layout *binlog.Layout
	trim   *trim   // columns stay out of the log
	signal *signal // its rows are watermarks
	ghost  bool    // not read, but named as the ghost of a table that is
	// looked: the catalogue said a part of it, so it ends with the next statement about the table.
	looked bool
}

// tables keeps the shapes of a stream.
type tables struct {
	byID   map[uint64]*shape
	lastID uint64
	last   *shape
	byName map[string]*shape
	known  map[string]*schemas.Table // what the log had when the stream began, and stand-ins
	ddl    map[string]*ddl.Pending   // statements about a table since its last table map
	ghosts map[string]bool           // names that look like a ghost's: whether they are one's
}

// maxIDs bounds the map of table ids: each reopening of a table gives it a new one.
const maxIDs = 1 << 14

func (t *tables) init(r *reader) {
	t.byID, t.byName, t.known = map[uint64]*shape{}, map[string]*shape{}, map[string]*schemas.Table{}
	t.ddl, t.ghosts = map[string]*ddl.Pending{}, map[string]bool{}
	if r.src.cfg.Known == nil {
		return
	}
	for _, k := range r.src.cfg.Known() {
		t.known[k.Schema+"."+k.Name] = k
	}
}

// forget drops the ids: they mean something else after a restart of the server.
func (t *tables) forget() {
	clear(t.byID)
	t.last = nil
}

// of returns the shape with an id of this stream.
func (t *tables) of(id uint64) *shape {
	if t.last != nil && t.lastID == id {
		return t.last
	}
	sh := t.byID[id]
	if sh != nil {
		t.lastID, t.last = id, sh
	}
	return sh
}

func (t *tables) put(id uint64, sh *shape) {
	if len(t.byID) > maxIDs {
		clear(t.byID)
	}
	t.byID[id], t.lastID, t.last = sh, id, sh
}

// touched tells that a statement changed the table: what the catalogue said of it is over.
func (t *tables) touched(name string) *ddl.Pending {
	if sh := t.byName[name]; sh != nil && sh.looked {
		sh.raw = nil
	}
	p := t.ddl[name]
	if p == nil {
		p = &ddl.Pending{}
		t.ddl[name] = p
	}
	return p
}

// newest is the last known shape of a table, nil when none is.
func (t *tables) newest(name string) *schemas.Table {
	if sh := t.byName[name]; sh != nil && sh.table != nil {
		return sh.table
	}
	return t.known[name]
}

// tableMap reads a table map. Most repeat what is known: then nothing is allocated.
func (r *reader) tableMap(h event.Header, body []byte) error {
	if r.tx.skip {
		return nil
	}
	id, err := event.RowsTable(body)
	if err != nil {
		return err
	}
	raw := body[8:]
	if sh := r.tables.of(id); sh != nil && sh.raw != nil && bytes.Equal(sh.raw, raw) {
		return nil
	}
	m, err := binlog.ReadTableMap(body, r.srv.mariadb)
	if err != nil {
		return err
	}
	name := m.Schema + "." + m.Table
	if sh := r.tables.byName[name]; sh != nil && sh.raw != nil && bytes.Equal(sh.raw, raw) {
		r.tables.put(id, sh)
		return nil
	}
	sh := &shape{schema: m.Schema, name: m.Table, raw: bytes.Clone(raw)}
	before, here := r.tables.newest(name), r.tables.byName[name]
	wanted, err := r.wanted(m.Schema, m.Table)
	if err == nil && wanted {
		sh.wanted, err = r.shape(sh, m)
	}
	if err != nil {
		return err
	}
	if sh.wanted {
		r.known(sh.schema, sh.name)
		r.src.live.Store(liveKey{sh.schema, sh.name}, sh.table)
	} else if r.isSignal(name) {
		sh.signal = newSignal(m)
	} else if !wanted {
		sh.ghost = r.ghostly(statement.Name{Schema: sh.schema, Table: sh.name})
	}
	r.tables.byName[name] = sh
	r.tables.put(id, sh)
	if !wanted { // what was done to a ghost counts for the table whose place it takes
		return nil
	}
	pending := r.tables.ddl[name]
	delete(r.tables.ddl, name)
	if !sh.wanted {
		return nil
	}
	if event, rewrites := pending.Effect(before, sh.table, before == sh.table || before != nil && same(before, sh.table), here != nil && here.table != nil); event {
		return r.schemaEvent(sh.table, pending.Text(), rewrites)
	}
	return nil
}

func (r *reader) isSignal(name string) bool {
	return name == r.src.cfg.WatermarkTable || r.srv.fold && strings.EqualFold(name, r.src.cfg.WatermarkTable)
}

// wanted tells whether the table's rows are to be read.
func (r *reader) wanted(schema, name string) (bool, error) {
	if !r.src.tables.match(schema, name, r.srv.fold) {
		return false, nil
	}
	if ghost, err := r.ghost(schema, name); ghost || err != nil {
		return false, err
	}
	if r.quar.all != "" {
		r.quarantine(schema, name, codeStatement, r.quar.all, cureStatement)
	}
	return !r.closed(schema + "." + name), nil
}

// shape makes a table of what the table map says, and of the catalogue where the map does not suffice. ok
// is false when the table cannot be read: then it is quarantined.
func (r *reader) shape(sh *shape, m *binlog.TableMap) (ok bool, err error) {
	sh.looked, ok, err = r.declare(m)
	if err != nil || !ok {
		return false, err
	}
	t := &schemas.Table{Schema: m.Schema, Name: m.Table, Wire: schemas.WireBinlog, Identity: m.Identity, FullBefore: r.srv.rowImageFull}
	var drop []bool
	for i := range m.Columns {
		c := &m.Columns[i]
		ty, err := binlog.TypeOf(*c)
		if err != nil {
			r.quarantine(m.Schema, m.Table, codeType, fmt.Sprintf("column %s: %v", c.Name, err), "take the column out with columns:, or upgrade Leat; then "+pipeline.BringRows)
			return false, nil
		}
		out := r.src.drops(m.Schema, m.Table, c.Name, r.srv.fold)
		if out && slices.Contains(m.Identity, i) {
			r.quarantine(m.Schema, m.Table, codeColumns, fmt.Sprintf("columns: leaves out %s, a column of the primary key: rows could not be told apart", c.Name), "keep the columns of the primary key")
			return false, nil
		}
		if out {
			drop = append(append(drop, make([]bool, i-len(drop))...), true)
		}
		t.Columns = append(t.Columns, schemas.Column{Name: c.Name, Type: ty, Nullable: c.Nullable, Hidden: c.Hidden, Dropped: out})
	}
	if sh.layout, err = binlog.NewLayout(t); err != nil {
		r.quarantine(m.Schema, m.Table, codeType, err.Error(), "upgrade Leat; then "+pipeline.BringRows)
		return false, nil
	}
	old := r.tables.byName[m.Schema+"."+m.Table]
	if old != nil && old.table != nil && !old.table.FullBefore && same(old.table, t) {
		t.FullBefore = false // seen in this stream's rows: it does not go back and forth
	}
	if drop != nil {
		sh.trim = newTrim(t, append(drop, make([]bool, len(t.Columns)-len(drop))...))
	}
	sh.table = t.Seal()
	if old != nil && old.table != nil && old.table.ShapeHash() == t.ShapeHash() {
		sh.table = old.table
	}
	return true, nil
}

// same compares what subscribers see of two versions: not ids, routing and images.
func same(a, b *schemas.Table) bool {
	x, y := *a, *b
	for _, t := range []*schemas.Table{&x, &y} {
		t.FullBefore, t.Routing, t.KeySpace = false, nil, ""
	}
	return x.ShapeHash() == y.ShapeHash()
}

// tableEvent adds a table-wide event to the open transaction.
func (r *reader) tableEvent(op pipeline.Op, t *schemas.Table, after []byte) error {
	if err := r.room(); err != nil {
		return err
	}
	i, err := r.tableIndex(t)
	if err != nil {
		return err
	}
	e := pipeline.Event{Op: op, Table: i, Tx: uint32(len(r.b.Txs) - 1), Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: pipeline.Nowhere}
	if after != nil {
		e.After = r.b.Put(after)
	}
	r.b.Events = append(r.b.Events, e)
	r.tx.count++
	return nil
}

// tableIndex is the table's place in the batch; a batch that speaks of too many is cut.
func (r *reader) tableIndex(t *schemas.Table) (uint16, error) {
	if len(r.b.Tables) >= pipeline.MaxTables && !slices.Contains(r.b.Tables, t) {
		if err := r.cut(); err != nil {
			return 0, err
		}
		if err := r.room(); err != nil {
			return 0, err
		}
	}
	return r.b.TableIndex(t)
}

// stand is a table without columns, for a table-wide event of a table of which no row was seen.
func (r *reader) stand(schema, name string) *schemas.Table {
	full := schema + "." + name
	if t := r.tables.newest(full); t != nil {
		return t
	}
	t := (&schemas.Table{Schema: strings.Clone(schema), Name: strings.Clone(name), Wire: schemas.WireNone}).Seal()
	r.tables.known[full] = t
	return t
}
