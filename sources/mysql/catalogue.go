package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// The catalogue tells what a table is now; rows are of what it was. So it is only believed like this: it
// is read, then the end of the binlog (G) is asked for, then the binlog between our place and G is looked
// through for statements about the table, on a second connection, while the rows are held. When there is
// none, the table is now what it was at our place, and stays so until a statement about it comes by.

// lookups reads the catalogue for a stream. Owned by the stream's run goroutine.
type lookups struct {
	src  *Source
	srv  *server
	snap *snapshot
	// ctx ends what is under way when the stream is closed.
	ctx    context.Context
	cancel context.CancelFunc
}

// snapshot is the catalogue as it was at one place of the binlog.
type snapshot struct {
	columns map[string][]catalogColumn
	// file and pos are G.
	file string
	pos  uint64
	// touched are the statements about a table between where we stood and G.
	touched map[string][]touch
}

// touch is one statement about a table.
type touch struct {
	file string
	pos  uint64
	text string
	kind statement.Kind
}

// catalogColumn is a column as the catalogue has it.
type catalogColumn struct {
	name, declared, collation string
	hidden, nullable, primary bool
	collationID               uint64
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
	name := m.Schema + "." + m.Table
	if r.look.snap == nil || !before(r.file, r.pos, r.look.snap.file, r.look.snap.pos) {
		if r.look.snap, err = r.look.read(r); err != nil {
			return false, false, err
		}
	}
	snap := r.look.snap
	columns := snap.columns[name]
	var since []touch
	for _, t := range snap.touched[name] {
		if !before(t.file, t.pos, r.file, r.pos) {
			since = append(since, t)
		}
	}
	if m.Named {
		return r.declareNamed(m, columns, since)
	}
	const cure = "SET PERSIST binlog_row_metadata='FULL' (MariaDB: SET GLOBAL binlog_row_metadata='FULL'); then " + pipeline.BringRows
	switch {
	case len(since) > 0:
		r.quarantine(m.Schema, m.Table, codeMetadata, "the binlog does not name the columns, and a statement changed the table since these rows: "+firstWords(since[0].text), cure)
		return false, false, nil
	case len(columns) != len(m.Columns):
		r.quarantine(m.Schema, m.Table, codeMetadata, fmt.Sprintf("the binlog does not name the columns: it has %d of them, the catalogue %d", len(m.Columns), len(columns)), cure)
		return false, false, nil
	}
	for i := range columns {
		columns[i].fill(&m.Columns[i], m, i)
	}
	return true, true, nil
}

// declareNamed sets what the catalogue declares of the columns that the event leaves open.
func (r *reader) declareNamed(m *binlog.TableMap, columns []catalogColumn, since []touch) (looked, ok bool, err error) {
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
			if columns[j].name == c.Name {
				declared = columns[j].declared
			}
		}
		if !sure || declared == "" {
			r.quarantine(m.Schema, m.Table, codeMetadata, fmt.Sprintf("the binlog does not tell the type of column %s (uuid, inet, vector or bytes), and a statement changed the table since these rows", c.Name),
				pipeline.BringRows)
			return false, false, nil
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

// read takes a snapshot and looks through the binlog up to it.
func (l *lookups) read(r *reader) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(l.ctx, lookupTimeout)
	defer cancel()
	c, err := l.src.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	v, _, err := c.inspect(ctx)
	if err != nil {
		return nil, err
	}
	if v.identity() != l.srv.identity() {
		return nil, transient("server_changed", "look at the catalogue: the url leads to another server now", nil)
	}
	snap := &snapshot{touched: map[string][]touch{}}
	if snap.columns, err = c.catalogue(ctx); err != nil {
		return nil, err
	}
	if snap.file, snap.pos, err = c.binlogEnd(ctx, v); err != nil {
		return nil, err
	}
	file, pos := r.file, r.tx.from
	if !before(file, pos, snap.file, snap.pos) {
		return snap, nil
	}
	if err := c.register(ctx, v, 0, ""); err != nil {
		return nil, err
	}
	from := pos
	if from > 1<<32-1 {
		from = 4
	}
	if err := c.dumpFile(0, file, uint32(max(from, 4)), dumpNonBlock); err != nil {
		return nil, err
	}
	return snap, l.scan(ctx, c, r, snap, file, from)
}

// scan notes the statements between a place and the snapshot's.
func (l *lookups) scan(ctx context.Context, c *conn, r *reader, snap *snapshot, file string, pos uint64) error {
	chunks, free, done := make(chan chunk, 1), make(chan []byte, 2), make(chan struct{})
	free <- make([]byte, 0, gulp)
	free <- make([]byte, 0, gulp)
	ended := make(chan struct{})
	go func() { defer close(ended); pump(c.raw, c.silence, chunks, free, done) }()
	defer func() { close(done); _ = c.raw.Close(); <-ended }()
	stop := context.AfterFunc(ctx, func() { _ = c.raw.Close() })
	defer stop()

	look := &reader{src: r.src, srv: r.srv, file: file, pos: pos}
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
			if err := look.skim(ev, snap); err != nil {
				return look.explain(event.Header{}, err)
			}
			if !before(look.file, look.pos, snap.file, snap.pos) {
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
func (r *reader) skim(ev []byte, snap *snapshot) error {
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
	note := func(name string) {
		snap.touched[name] = append(snap.touched[name], touch{r.file, r.pos, text, s.Kind})
	}
	switch s.Kind {
	case statement.Create, statement.Alter, statement.Rename, statement.Drop:
		for _, n := range append(s.Tables, s.Taken...) {
			note(n.Schema + "." + n.Table)
		}
	case statement.DropSchema:
		for name := range snap.columns {
			if len(s.Tables) > 0 && strings.HasPrefix(name, s.Tables[0].Schema+".") {
				note(name)
			}
		}
	}
	return nil
}
