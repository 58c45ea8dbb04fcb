// Package chunks reads tables of MySQL and MariaDB in parts, for snapshots: it is a source's [snapshot.Database].
//
//   - database.go: which tables there are, sessions, errors.
//   - mark.go: watermarks.
//   - session.go: one connection that reads; whole.go: tables without a key.
//   - shape.go: what a table looks like, as the stream would tell it.
//   - statement.go, keys.go: the SELECT, and the keys in it.
//   - result.go, packets.go: rows as the server sends them.
package chunks

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql/internal/catalog"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// Conn is one connection to a server, with the stream's session settings. Errors are *pipeline.SourceError, which wrap
// the server's own.
type Conn interface {
	// Rows runs a statement and returns its rows as text, NULL as "".
	Rows(ctx context.Context, sql string) ([][]string, error)
	// Send begins a command: its first byte and what follows. The answer is read from Net.
	Send(command []byte) error
	Net() net.Conn
	Close() error
}

// Server is what a connected server says about itself.
type Server struct {
	MariaDB bool
	// GTIDs: every transaction has one.
	GTIDs bool
	// RowImageFull and MetadataFull are what the stream's shapes go by.
	RowImageFull, MetadataFull bool
	// Fold: table names have one case.
	Fold bool
}

// Place is where a transaction ends in the binlog.
type Place struct {
	File string
	Pos  uint64
}

// Config is what a source gives.
type Config struct {
	// Name of the source.
	Name string
	// Signal is the table ("database.table") that watermarks are written to; "" = never write.
	Signal string
	// Connect opens a connection to the server, or to the replica that tables are read from.
	Connect func(ctx context.Context, replica bool) (Conn, Server, error)
	// Replica: there is one.
	Replica bool
	// Match picks the source's tables, Names those that a glob means, Drops the columns that stay out of the log.
	// Ghost tells of which table another is a tool's copy, if that exists.
	Match func(schema, table string, fold bool) bool
	Ghost func(schema, table string, fold bool) (of string, ok bool)
	Names func(glob, schema, table string, fold bool) bool
	Drops func(schema, table, column string, fold bool) bool
	// Live returns the shape that the stream has of a table now, nil when it has none.
	Live func(schema, table string) *schemas.Table
	// Await puts a watermark into the stream at a place of the binlog, or where the stream stands if that is
	// further; it returns which of them.
	Await func(ctx context.Context, id string, at Place) (Place, error)
	// Failed makes a *pipeline.SourceError of an error of a connection, also of the server's own.
	Failed func(doing string, err error) error
	// Silence is how long the server may say nothing.
	Silence time.Duration
	// Warned tells a person something.
	Warned func(what, cure string)
}

// Database is a source's [snapshot.Database]. Safe for concurrent use.
type Database struct {
	cfg  Config
	keys keys

	mu      sync.Mutex // guards what follows: one statement at a time
	conn    Conn
	server  Server
	signal  signalState
	ordered bool  // transactions become visible in the order of the binlog
	format  error // why what we write is not logged as rows

	// reached is what a replica has to have replayed before a read: GTIDs as the primary writes them; a string.
	reached atomic.Value
	shapes  sync.Map // name → *schemas.Table: pointers that stay while the shape does
}

var _ snapshot.Database = (*Database)(nil)

// New returns a database that connects when it is first asked something.
func New(cfg Config) *Database { return &Database{cfg: cfg} }

// Key implements [snapshot.Database].
func (d *Database) Key(t *schemas.Table, image []byte) ([]byte, error) { return d.keys.of(t, image) }

// Close ends the connection; the database may be used again.
func (d *Database) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.drop()
}

func (d *Database) drop() error {
	if d.conn == nil {
		return nil
	}
	c := d.conn
	d.conn = nil
	return c.Close()
}

// rows runs a statement on the connection for all but reading. d.mu is held. A lost connection is made anew once: none
// of the statements does harm twice.
func (d *Database) rows(ctx context.Context, sql string) ([][]string, error) {
	for again := false; ; again = true {
		if err := d.connect(ctx); err != nil {
			return nil, err
		}
		list, err := d.conn.Rows(ctx, sql)
		if err == nil || number(err) != 0 {
			return list, err
		}
		_ = d.drop() // it is broken
		if again || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (d *Database) connect(ctx context.Context) error {
	if d.conn != nil {
		return nil
	}
	c, server, err := d.cfg.Connect(ctx, false)
	if err != nil {
		return err
	}
	d.conn, d.server, d.ordered, d.signal, d.format = c, server, true, signalUnknown, nil
	if err := d.asks(ctx); err != nil {
		return errors.Join(err, d.drop())
	}
	return nil
}

// asks finds out what the server does, and makes it log our rows as rows.
func (d *Database) asks(ctx context.Context) error {
	list, err := d.conn.Rows(ctx, "SELECT @@session.binlog_format")
	if err == nil && len(list) == 1 && list[0][0] != "ROW" {
		_, err = d.conn.Rows(ctx, "SET SESSION binlog_format='ROW'")
		if number(err) != 0 {
			d.format = err
		}
	}
	if err != nil && number(err) == 0 { // a server of the future may know no other format
		return err
	}
	if d.server.MariaDB {
		return nil // it commits in the order of the binlog, always
	}
	if list, err = d.conn.Rows(ctx, "SELECT @@global.binlog_order_commits"); err != nil {
		return err
	}
	d.ordered = len(list) == 1 && list[0][0] == "1"
	return nil
}

// Tables implements [snapshot.Database].
func (d *Database) Tables(ctx context.Context, globs []string) ([]snapshot.Table, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list, err := d.rows(ctx, `SELECT TABLE_SCHEMA, TABLE_NAME, COALESCE(TABLE_ROWS, 0), COALESCE(AVG_ROW_LENGTH, 0) FROM information_schema.TABLES
		WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND `+catalog.Everything+` ORDER BY 1, 2`)
	if err != nil {
		return nil, err
	}
	keys, err := primary(ctx, d.rows, catalog.Everything)
	if err != nil {
		return nil, err
	}
	there := make(map[[2]string]bool, len(list))
	for _, row := range list {
		there[[2]string{row[0], row[1]}] = true
	}
	var out []snapshot.Table
	for _, row := range list {
		if !d.cfg.Match(row[0], row[1], d.server.Fold) || !d.wanted(globs, row[0], row[1]) {
			continue
		}
		if of, ghost := d.cfg.Ghost(row[0], row[1], d.server.Fold); ghost && there[[2]string{row[0], of}] {
			continue
		}
		t := snapshot.Table{Schema: row[0], Name: row[1], Key: keys[row[0]+"."+row[1]].columns}
		t.Estimate, _ = strconv.ParseUint(row[2], 10, 64)
		t.Width, _ = strconv.ParseUint(row[3], 10, 64)
		if len(t.Key) == 0 {
			t.Why = "it has neither a primary key nor a unique one without NULL"
		}
		out = append(out, t)
	}
	return out, nil
}

func (d *Database) wanted(globs []string, schema, table string) bool {
	for _, g := range globs {
		if d.cfg.Names(g, schema, table, d.server.Fold) {
			return true
		}
	}
	return false
}

// Session implements [snapshot.Database].
func (d *Database) Session(ctx context.Context) (snapshot.Session, error) {
	c, server, err := d.cfg.Connect(ctx, d.cfg.Replica)
	if err != nil {
		return nil, err
	}
	s := &session{db: d, conn: c, server: server, packets: newPackets(c.Net(), d.cfg.Silence), known: map[string]*shaped{}}
	if err := s.settings(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return s, nil
}

// number returns the server's number of an error, 0 when it is not the server's.
func number(err error) uint16 {
	var my *gomysql.MyError
	if errors.As(err, &my) {
		return my.Code
	}
	return 0
}

// Server error numbers, as package mysql has them.
const (
	erDBAccess      = 1044
	erAccess        = 1045
	erUnknownDB     = 1049
	erUnknownColumn = 1054
	erTableAccess   = 1142
	erColumnAccess  = 1143
	erNoSuchTable   = 1146
	erSpecific      = 1227
	erOption        = 1290 // --read-only
	erDefChanged    = 1412
	erReadOnly      = 1836
	erTooManyStmts  = 1461
)

// faulty says what an error of the server means for the table that was read.
func faulty(t *snapshot.Table, err error) error {
	name := t.Schema + "." + t.Name
	switch number(err) {
	case erNoSuchTable, erUnknownDB:
		return &snapshot.TableError{Code: "dropped", What: "the table " + name + " does not exist any more", Err: err}
	case erDBAccess, erTableAccess, erColumnAccess, erAccess:
		return &snapshot.TableError{Code: "no_right", What: "no right to read " + name, Cure: "GRANT SELECT ON " + from(t.Schema, t.Name) + " TO the user of the url", Err: err}
	}
	return err
}

func transient(code, what string, err error) error {
	return &pipeline.SourceError{Class: pipeline.Transient, Code: code, What: what, Err: err}
}

func stopped(code, what, cure string, err error) error {
	return &pipeline.SourceError{Class: pipeline.Stopped, Code: code, What: what, Cure: cure, Err: err}
}

func protocol(doing string, why string) error {
	return transient("protocol", doing, errors.New(why))
}

// place reads FILE and POSITION of a row.
func place(row []string) (Place, error) {
	if len(row) >= 2 && row[0] != "" {
		if pos, err := strconv.ParseUint(row[1], 10, 64); err == nil {
			return Place{row[0], pos}, nil
		}
	}
	return Place{}, fmt.Errorf("%q is no place in the binlog", strings.Join(row, ":"))
}
