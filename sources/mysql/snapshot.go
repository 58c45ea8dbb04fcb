package mysql

import (
	"context"
	"errors"
	"net"
	"strings"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql/internal/chunks"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// defaultSignal is the table that watermarks of snapshots are written to.
const defaultSignal = "leat.watermark"

// noSignal as Config.WatermarkTable: never write to the server.
const noSignal = "-"

// liveKey is a table by name.
type liveKey struct{ schema, name string }

// Snapshots returns what package sources/snapshot needs to read the source's tables. It connects when it is first
// asked something; Close ends its connection.
func (s *Source) Snapshots() *Snapshots { return &Snapshots{chunks.New(s.chunks())} }

func (s *Source) chunks() chunks.Config {
	table := s.cfg.WatermarkTable
	if table == noSignal {
		table = ""
	}
	return chunks.Config{
		Name: s.cfg.Name, Signal: table, Replica: s.cfg.ReplicaURL != "",
		Connect: s.reader,
		Match:   s.tables.match,
		Ghost:   s.ghostOf,
		Names:   names,
		Drops:   s.drops,
		Live: func(schema, table string) *schemas.Table {
			t, _ := s.live.Load(liveKey{schema, table})
			live, _ := t.(*schemas.Table)
			return live
		},
		Await:  s.await,
		Failed: connectionFailed,
		// Rows of a large table's condition may be far apart.
		Silence: max(s.cfg.LookupTimeout, lookupTimeout),
		Warned:  func(what, cure string) { s.cfg.Observer.Warned("source "+s.cfg.Name, what, cure) },
	}
}

// Snapshots is a source's [snapshot.Database]: Tables, Mark, Session, Key.
type Snapshots struct{ *chunks.Database }

var _ snapshot.Database = (*Snapshots)(nil)

// reader opens a connection that reads tables.
func (s *Source) reader(ctx context.Context, replica bool) (chunks.Conn, chunks.Server, error) {
	from := s
	if replica {
		from = &Source{cfg: s.cfg, url: s.replica}
	}
	c, err := from.connect(ctx)
	if err != nil {
		return nil, chunks.Server{}, err
	}
	v, _, err := c.inspect(ctx)
	if err != nil {
		return nil, chunks.Server{}, errors.Join(err, c.Close())
	}
	return tableConn{c}, chunks.Server{MariaDB: v.mariadb, GTIDs: v.gtids, RowImageFull: v.rowImageFull, MetadataFull: v.metadataFull, Fold: v.fold}, nil
}

// tableConn is a connection as package chunks wants it.
type tableConn struct{ c *conn }

func (r tableConn) Rows(ctx context.Context, sql string) ([][]string, error) {
	return r.c.rows(ctx, sql)
}
func (r tableConn) Net() net.Conn { return r.c.raw }
func (r tableConn) Close() error  { return r.c.Close() }

func (r tableConn) Send(command []byte) error {
	r.c.ResetSequence()
	return r.c.WritePacket(append(make([]byte, 4), command...))
}

// connectionFailed says what an error of a connection that reads tables means.
func connectionFailed(doing string, err error) error {
	var my *gomysql.MyError
	if errors.As(err, &my) {
		return serverError(doing, my)
	}
	return transient("disconnected", doing, oneLine{err})
}

// signalTable takes the signal table out of the tables that are read.
func (g *globs) signalTable(name string) {
	schema, table, ok := strings.Cut(name, ".")
	if ok {
		g.out = append(g.out, schemas.Subject(schema, table), name)
	}
}
