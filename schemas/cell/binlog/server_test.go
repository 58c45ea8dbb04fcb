package binlog_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
	_ "github.com/go-sql-driver/mysql"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// server is a database of the test's own, and its binlog.
type server struct {
	mariadb  bool
	conn     *sql.Conn
	db       *servertest.Database
	checksum int
}

// lenient lets every value in that the server can store.
const lenient = "set session sql_mode='ALLOW_INVALID_DATES,NO_BACKSLASH_ESCAPES', time_zone='+00:00'"

func open(t testing.TB, mariadb bool, params map[string]string) *server {
	t.Helper()
	s := &server{mariadb: mariadb}
	o := servers.MySQLOptions{Params: params}
	if mariadb {
		s.db = servertest.MariaDB(t, o)
	} else {
		s.db = servertest.MySQL(t, o)
	}
	u, err := url.Parse(s.db.URL)
	check(t, err)
	password, _ := u.User.Password()
	pool, err := sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(%s)/%s?maxAllowedPacket=0", u.User.Username(), password, u.Host, s.db.Name))
	check(t, err)
	t.Cleanup(func() { check(t, pool.Close()) })
	s.conn, err = pool.Conn(t.Context())
	check(t, err)
	t.Cleanup(func() { check(t, s.conn.Close()) })
	s.exec(t, lenient, "alter database "+s.db.Name+" character set utf8mb4")
	if s.text(t, "select @@global.binlog_checksum")[0][0] != "NONE" {
		s.checksum = 4
	}
	return s
}

func both(t *testing.T, f func(t *testing.T, s *server)) {
	t.Run("mysql", func(t *testing.T) { t.Parallel(); f(t, open(t, false, nil)) })
	t.Run("mariadb", func(t *testing.T) { t.Parallel(); f(t, open(t, true, nil)) })
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *server) exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, q := range statements {
		if _, err := s.conn.ExecContext(context.Background(), q); err != nil {
			t.Fatalf("%.200s: %v", q, err)
		}
	}
}

// null is how text gives NULL.
const null = "<NULL>"

// text gives a query's result as the server prints it.
func (s *server) text(t testing.TB, query string) [][]string {
	t.Helper()
	rows, err := s.conn.QueryContext(context.Background(), query)
	if err != nil {
		t.Fatalf("%.200s: %v", query, err)
	}
	defer func() { check(t, rows.Close()) }()
	columns, err := rows.Columns()
	check(t, err)
	var out [][]string
	for rows.Next() {
		cells, into := make([]sql.RawBytes, len(columns)), make([]any, len(columns))
		for i := range cells {
			into[i] = &cells[i]
		}
		check(t, rows.Scan(into...))
		line := make([]string, len(columns))
		for i, c := range cells {
			line[i] = null
			if c != nil {
				line[i] = string(c)
			}
		}
		out = append(out, line)
	}
	check(t, rows.Err())
	return out
}

// change is a row's images in wire form.
type change struct {
	table         *schemas.Table
	before, after []byte
	partial       bool // the after image had JSON diffs
}

var marks atomic.Int64

// record runs f and returns the changes that it left in the binlog. declared gives the catalogue's
// words for columns, by "table.column".
func (s *server) record(t testing.TB, declared map[string]string, f func()) []change {
	t.Helper()
	status := "show binary log status"
	if s.mariadb {
		status = "show master status"
	}
	at := s.text(t, status)[0]
	pos, err := strconv.ParseUint(at[1], 10, 32)
	check(t, err)
	f()
	mark := fmt.Sprintf("mark_%d_", marks.Add(1))
	s.exec(t, "create table "+mark+" (a int)")

	u, err := url.Parse(s.db.URL)
	check(t, err)
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	check(t, err)
	flavor := mysql.MySQLFlavor
	if s.mariadb {
		flavor = mysql.MariaDBFlavor
	}
	password, _ := u.User.Password()
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{
		ServerID: uint32(os.Getpid())<<8 + uint32(marks.Add(1)), Flavor: flavor, Host: u.Hostname(), Port: uint16(port), User: u.User.Username(), Password: password,
		RawModeEnabled: true, DisableRetrySync: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	defer syncer.Close()
	stream, err := syncer.StartSync(mysql.Position{Name: at[0], Pos: uint32(pos)})
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	r := &recorder{t: t, s: s, declared: declared, tables: map[uint64]*schemas.Table{}, layouts: map[*schemas.Table]*binlog.Layout{}}
	for {
		e, err := stream.GetEvent(ctx)
		check(t, err)
		body := e.RawData[19:]
		switch kind := e.Header.EventType; {
		case kind == replication.TABLE_MAP_EVENT:
			r.table(body[:len(body)-s.checksum])
		case kind >= replication.WRITE_ROWS_EVENTv1 && kind <= replication.DELETE_ROWS_EVENTv1, kind >= replication.WRITE_ROWS_EVENTv2 && kind <= replication.DELETE_ROWS_EVENTv2, kind == replication.PARTIAL_UPDATE_ROWS_EVENT:
			r.rows(kind, body[:len(body)-s.checksum])
		case kind == replication.QUERY_EVENT && bytes.Contains(body, []byte("create table "+mark)):
			return r.changes
		}
	}
}

type recorder struct {
	t        testing.TB
	s        *server
	declared map[string]string
	tables   map[uint64]*schemas.Table
	layouts  map[*schemas.Table]*binlog.Layout
	changes  []change
}

func (r *recorder) table(body []byte) {
	m, err := binlog.ReadTableMap(body, r.s.mariadb)
	check(r.t, err)
	delete(r.tables, m.TableID)
	if m.Schema != r.s.db.Name {
		return
	}
	table := &schemas.Table{Schema: m.Schema, Name: m.Table, Wire: schemas.WireBinlog, Identity: m.Identity}
	for _, c := range m.Columns {
		c.Declared = r.declared[m.Table+"."+c.Name]
		ty, err := binlog.TypeOf(c)
		check(r.t, err)
		table.Columns = append(table.Columns, schemas.Column{Name: c.Name, Type: ty, Nullable: c.Nullable, Hidden: c.Hidden})
	}
	r.tables[m.TableID] = table
	r.layouts[table], err = binlog.NewLayout(table)
	check(r.t, err)
}

func (r *recorder) rows(kind replication.EventType, body []byte) {
	id := uint64(binary.LittleEndian.Uint32(body)) | uint64(binary.LittleEndian.Uint16(body[4:]))<<32
	table := r.tables[id]
	if table == nil {
		return
	}
	body = body[8:]
	if kind >= replication.WRITE_ROWS_EVENTv2 {
		body = body[binary.LittleEndian.Uint16(body):]
	}
	n, _, size := mysql.LengthEncodedInt(body)
	body = body[size:]
	bitmap := (int(n) + 7) / 8
	first := body[:bitmap]
	second := first
	body = body[bitmap:]
	update := kind == replication.UPDATE_ROWS_EVENTv1 || kind == replication.UPDATE_ROWS_EVENTv2 || kind == replication.PARTIAL_UPDATE_ROWS_EVENT
	if update {
		second, body = body[:bitmap], body[bitmap:]
	}
	layout := r.layouts[table]
	image := func(present []byte) []byte {
		n, err := layout.RowLen(body, present)
		check(r.t, err)
		w := append(append([]byte{1}, present...), body[:n]...)
		all := true
		for i := range table.Columns {
			all = all && present[i/8]&(1<<(i%8)) != 0
		}
		if all {
			w = append([]byte{0}, body[:n]...)
		}
		body = body[n:]
		return w
	}
	for len(body) > 0 {
		c := change{table: table}
		switch kind {
		case replication.WRITE_ROWS_EVENTv1, replication.WRITE_ROWS_EVENTv2:
			c.after = image(first)
		case replication.DELETE_ROWS_EVENTv1, replication.DELETE_ROWS_EVENTv2:
			c.before = image(first)
		case replication.PARTIAL_UPDATE_ROWS_EVENT:
			c.before = image(first)
			after, n, err := layout.AppendPartial(nil, c.before, body, second)
			check(r.t, err)
			c.partial = body[0] != 0
			c.after, body = after, body[n:]
		default:
			c.before = image(first)
			c.after = image(second)
		}
		r.changes = append(r.changes, c)
	}
}

func join(list []string, sep string) string { return strings.Join(list, sep) }
