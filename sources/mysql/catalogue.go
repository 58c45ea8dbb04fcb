package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/mysql/internal/catalog"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// The catalogue tells what a table is now; rows are of what it was. So it is only believed like this: it
// is read, then the end of the binlog (G) is asked for, then the binlog between our place and G is looked
// through for statements about the table, on a second connection, while the rows are held. When there is
// none, the table is now what it was at our place, and stays so until a statement about it comes by.

// lookups reads the catalogue for a stream. Owned by the stream's run goroutine.
type lookups struct {
	src *Source
	srv *server
	// entries are what the catalogue said. The first tables are asked about one by one, then all at once: that
	// takes seconds where there are thousands of them.
	entries map[string]entry
	asked   int
	// touched are the statements about a table from where we stood when the catalogue was first asked on, up
	// to where we stand and to the G of each entry. A dropped database touches "database.".
	touched    map[string][]touch
	collations map[string]uint64
	// ctx ends what is under way when the stream is closed.
	ctx    context.Context
	cancel context.CancelFunc
}

// entry is a table as the catalogue had it at one place of the binlog, G.
type entry struct {
	columns []catalog.Column
	file    string
	pos     uint64
}

// touch is one statement about a table.
type touch struct {
	file string
	pos  uint64
	text string
	kind statement.Kind
}

// lookupTimeout bounds reading the catalogue and looking through the binlog.
const lookupTimeout = 10 * time.Minute

func newLookups(s *Source, v *server) *lookups {
	l := &lookups{src: s, srv: v}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *lookups) close() { l.cancel() }

// declare completes a table map by what only the catalogue knows. ok is false when it cannot be had for
// sure and the table cannot be read without: then it is quarantined.
func (r *reader) declare(m *binlog.TableMap) (looked, ok bool, err error) {
	if m.Named && !ambiguous(m, r.srv.mariadb) {
		return false, true, nil
	}
	columns, since, err := r.look.table(r, m.Schema, m.Table)
	if err != nil {
		return false, false, err
	}
	if m.Named {
		return r.declareNamed(m, columns, since)
	}
	const cure = "SET PERSIST binlog_row_metadata='FULL' (MariaDB: SET GLOBAL binlog_row_metadata='FULL'); then " + pipeline.BringRows
	switch {
	case len(since) > 0:
		r.quarantine(m.Schema, m.Table, codeMetadata, "the binlog does not name the columns, and a statement changed the table since these rows: "+firstWords(since[0].text), cure)
		return true, false, nil
	case len(columns) != len(m.Columns):
		r.quarantine(m.Schema, m.Table, codeMetadata, fmt.Sprintf("the binlog does not name the columns: it has %d of them, the catalogue %d", len(m.Columns), len(columns)), cure)
		return true, false, nil
	}
	for i := range columns {
		columns[i].Fill(&m.Columns[i], m, i)
	}
	return true, true, nil
}

// declareNamed sets what the catalogue declares of the columns that the event leaves open.
func (r *reader) declareNamed(m *binlog.TableMap, columns []catalog.Column, since []touch) (looked, ok bool, err error) {
	for i := range m.Columns {
		c := &m.Columns[i]
		if !open(c, r.srv.mariadb) {
			continue
		}
		sure := true
		for _, t := range since { // a statement that does not name the column leaves its type
			if t.kind != statement.Alter || statement.Mentions(t.text, c.Name, r.options(nil)) {
				sure = false
			}
		}
		declared := ""
		for j := range columns {
			if columns[j].Name == c.Name {
				declared = columns[j].Declared
			}
		}
		if !sure || declared == "" {
			r.quarantine(m.Schema, m.Table, codeMetadata, fmt.Sprintf("the binlog does not tell the type of column %s (uuid, inet, vector or bytes), and a statement changed the table since these rows", c.Name),
				pipeline.BringRows)
			return true, false, nil
		}
		c.Declared = declared
	}
	return true, true, nil
}

// open tells whether even a table map with full metadata leaves the column's type open: MariaDB's uuid,
// inet4, inet6 and vector look like bytes, and its old temporal formats lack their digits.
func open(c *binlog.TableMapColumn, mariadb bool) bool {
	switch c.Code {
	case binlog.TypeString, binlog.TypeVarchar:
		return mariadb && (c.Collation == collationBinary || c.Collation == 0) && c.Labels == nil
	case binlog.TypeTimestamp, binlog.TypeTime, binlog.TypeDatetime:
		return mariadb
	}
	return false
}

func ambiguous(m *binlog.TableMap, mariadb bool) bool {
	for i := range m.Columns {
		if open(&m.Columns[i], mariadb) {
			return true
		}
	}
	return false
}

// before tells whether one place of the binlog lies before another.
func before(file string, pos uint64, otherFile string, otherPos uint64) bool {
	return file == otherFile && pos < otherPos || file != otherFile && follows(file, otherFile)
}

// table returns what the catalogue says of a table, and the statements about it between our place and that.
func (l *lookups) table(r *reader, schema, name string) ([]catalog.Column, []touch, error) {
	full := schema + "." + name
	e, ok := l.entries[full]
	since := func() (list []touch) {
		from, to := place{file: r.file, pos: r.pos}, place{file: e.file, pos: e.pos}
		if !before(from.file, from.pos, to.file, to.pos) {
			from, to = to, from
			from.pos++ // a statement that ends at G is in what the catalogue said
		}
		for _, t := range slices.Concat(l.touched[full], l.touched[schema+"."]) {
			if !before(t.file, t.pos, from.file, from.pos) && !before(to.file, to.pos, t.file, t.pos) {
				list = append(list, t)
			}
		}
		return list
	}
	// Behind G it holds as long as nothing came by.
	stale := !before(r.file, r.pos, e.file, e.pos) && len(since()) > 0
	if l.entries != nil && ok && !stale {
		return e.columns, since(), nil
	}
	if list := l.touched[full]; list != nil { // what lies before our place is of no more use
		l.touched[full] = slices.DeleteFunc(list, func(t touch) bool { return before(t.file, t.pos, r.file, r.pos) })
	}
	if err := l.read(r, schema, name); err != nil {
		return nil, nil, err
	}
	e = l.entries[full]
	return e.columns, since(), nil
}

// note keeps a statement about a table.
func (l *lookups) note(name string, t touch) {
	if l.touched != nil {
		l.touched[name] = append(l.touched[name], t)
	}
}

// noteAll keeps a statement about the shape of tables.
func (l *lookups) noteAll(s statement.Statement, t touch) {
	switch s.Kind {
	case statement.Create, statement.Alter, statement.Rename, statement.Drop:
		if s.Temporary {
			return
		}
		for _, n := range slices.Concat(s.Tables, s.Taken) {
			l.note(n.Schema+"."+n.Table, t)
		}
	case statement.DropSchema:
		for _, n := range s.Tables {
			l.note(n.Schema+".", t)
		}
	}
}

// singly is how many tables are asked about one by one before all are at once.
const singly = 50

// read asks the catalogue about a table, or all of them, and looks through the binlog up to where it stood then.
func (l *lookups) read(r *reader, schema, name string) error {
	ctx, cancel := context.WithTimeout(l.ctx, lookupTimeout)
	defer cancel()
	c, err := l.src.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	v, _, err := c.inspect(ctx)
	if err != nil {
		return err
	}
	if v.identity() != l.srv.identity() {
		return transient("server_changed", "look at the catalogue: the url leads to another server now", nil)
	}
	if l.collations == nil {
		if l.collations, err = catalog.Collations(ctx, c.rows); err != nil {
			return err
		}
	}
	where := catalog.Everything
	if l.entries != nil {
		where += fmt.Sprintf(" AND TABLE_SCHEMA = %s AND TABLE_NAME = %s", quote(schema), quote(name))
	}
	columns, err := catalog.Columns(ctx, c.rows, l.collations, where)
	if err != nil {
		return err
	}
	file, pos, err := c.binlogEnd(ctx, v)
	if err != nil {
		return err
	}
	full := schema + "." + name
	if l.entries == nil {
		l.entries, l.touched = map[string]entry{}, map[string][]touch{}
	}
	for name, list := range columns {
		schema, table, _ := strings.Cut(name, ".")
		if !l.src.tables.match(schema, table, l.srv.fold) && name != full {
			continue
		}
		l.entries[name] = entry{list, file, pos}
	}
	if columns[full] == nil {
		l.entries[full] = entry{nil, file, pos} // gone since
	}
	return l.between(ctx, c, v, r, file, pos)
}

// between notes the statements from our place to another.
func (l *lookups) between(ctx context.Context, c *conn, v *server, r *reader, untilFile string, until uint64) error {
	file, pos := r.file, r.tx.from
	if !before(file, pos, untilFile, until) {
		return nil
	}
	if err := c.register(ctx, v, 0, ""); err != nil {
		return err
	}
	from := pos
	if from > 1<<32-1 {
		from = 4
	}
	if err := c.dumpFile(0, file, uint32(max(from, 4)), dumpNonBlock); err != nil {
		return err
	}
	return l.scan(ctx, c, &reader{src: r.src, srv: r.srv, file: file, pos: from}, untilFile, until)
}

// scan notes the statements that look finds up to a place.
func (l *lookups) scan(ctx context.Context, c *conn, look *reader, file string, pos uint64) error {
	chunks, free, done := make(chan chunk, 1), make(chan []byte, 2), make(chan struct{})
	free <- make([]byte, 0, gulp)
	free <- make([]byte, 0, gulp)
	ended := make(chan struct{})
	go func() { defer close(ended); pump(c.raw, c.silence, chunks, free, done) }()
	defer func() { close(done); _ = c.raw.Close(); <-ended }()
	stop := context.AfterFunc(ctx, func() { _ = c.raw.Close() })
	defer stop()

	for ch := range chunks {
		for b := ch.buf; len(b) > 0; {
			ev, rest, err := look.packets.next(b)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			b = rest
			if ev == nil {
				continue
			}
			if err := look.skim(ev, l); err != nil {
				return look.explain(event.Header{}, err)
			}
			if !before(look.file, look.pos, file, pos) {
				return nil
			}
		}
		if ch.err != nil {
			return readError(ch.err, c.silence)
		}
		free <- ch.buf
	}
	return readError(ctx.Err(), c.silence)
}

// skim reads an event as far as it moves the place or is a statement.
func (r *reader) skim(ev []byte, l *lookups) error {
	h, err := event.ReadHeader(ev)
	if err != nil {
		return err
	}
	r.advance(h)
	body := ev[event.HeaderSize:]
	if h.Type == event.FormatDescription {
		r.format, err = event.ReadFormat(body)
		r.formats++
		return err
	}
	if r.format.Checksum && len(body) >= 4 || r.formats == 0 && event.ChecksumOK(ev) {
		body = body[:len(body)-4]
	}
	switch h.Type {
	case event.Rotate:
		pos, file, err := event.ReadRotate(body)
		if err == nil && (h.Flags&event.FlagArtificial == 0 || file != r.file) {
			r.file, r.pos = file, pos
		}
		return err
	case event.Query, event.MariaQueryCompressed:
	default:
		return nil
	}
	q, err := event.ReadQuery(body)
	if err == nil && h.Type == event.MariaQueryCompressed {
		q.Text, err = r.inflate.Inflate(q.Text, maxEvent)
	}
	if err != nil || q.Begins() {
		return err
	}
	text := r.text(q.Text, q.Collation)
	s := statement.Read(text, r.options(&q))
	l.noteAll(s, touch{r.file, r.pos, text, s.Kind})
	return nil
}
