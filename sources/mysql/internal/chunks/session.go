package chunks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/cell/binlog/rowimage"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// session is one connection that reads.
type session struct {
	db         *Database
	conn       Conn
	server     Server
	packets    *packets
	known      map[string]*shaped
	collations map[string]uint64
	waited     string // GTIDs that this replica has replayed
	// whole is the read of a table without a key that is under way.
	whole *reading
	// broken: the connection is of no use any more.
	broken error
}

var _ snapshot.Session = (*session)(nil)

// settings are those of the stream's connections, which Connect made, and what long reads need: text as it is kept, no
// bound of time or rows, whatever the server's defaults are.
func (s *session) settings(ctx context.Context) error {
	more := "max_execution_time=0"
	if s.server.MariaDB {
		more = "max_statement_time=0"
	}
	if _, err := s.conn.Rows(ctx, "SET SESSION character_set_results=NULL, autocommit=1, sql_select_limit=DEFAULT, transaction_isolation='REPEATABLE-READ', "+more); err != nil {
		if number(err) != gomysql.ER_UNKNOWN_SYSTEM_VARIABLE {
			return err
		}
		// MariaDB before 11.1 calls it by another name.
		_, err = s.conn.Rows(ctx, "SET SESSION character_set_results=NULL, autocommit=1, sql_select_limit=DEFAULT, tx_isolation='REPEATABLE-READ', "+more)
		return err
	}
	return nil
}

// Close implements [snapshot.Session].
func (s *session) Close() error { return s.conn.Close() }

// errShape: the table is not any more what it was when it was looked at.
var errShape = errors.New("the table changed")

// Read implements [snapshot.Session].
func (s *session) Read(ctx context.Context, q snapshot.Query, c *snapshot.Chunk) error {
	c.Reset()
	if s.broken != nil {
		return transient("disconnected", "read "+q.Table.Schema+"."+q.Table.Name, s.broken)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Net().Close() })
	defer stop()
	if q.Rest {
		return s.rest(ctx, &q, c)
	}
	if s.whole != nil { // what is left of it would have to be read: a new connection is cheaper
		s.broken = errors.New("another read began before the last one ended")
		return transient("disconnected", "read "+q.Table.Schema+"."+q.Table.Name, s.broken)
	}
	if err := snapshot.CheckCondition(q.Where, snapshot.MySQL); err != nil {
		return &snapshot.TableError{Code: "where", What: "the condition does not fit the table " + q.Table.Schema + "." + q.Table.Name, Cure: "give a condition that stands behind WHERE, within brackets", Err: err}
	}
	if err := s.replayed(ctx); err != nil {
		return err
	}
	if len(q.Table.Key) == 0 {
		return s.begin(ctx, &q, c)
	}
	for range 10 {
		err := s.chunk(ctx, &q, c)
		if !errors.Is(err, errShape) {
			return err
		}
		c.Reset()
	}
	return transient("shape", "read "+q.Table.Schema+"."+q.Table.Name, errors.New("it changes all the time"))
}

// chunk reads rows of a table with a key.
func (s *session) chunk(ctx context.Context, q *snapshot.Query, c *snapshot.Chunk) error {
	sh, err := s.shape(ctx, &q.Table)
	if err != nil {
		return err
	}
	if len(sh.key) == 0 {
		return &snapshot.TableError{Code: "shape", What: "the table " + q.Table.Schema + "." + q.Table.Name + " has no primary key any more", Cure: "start the snapshot of the table again"}
	}
	if c.Unseen, err = s.db.unseen(ctx); err != nil {
		return err
	}
	r, err := s.start(ctx, sh, q)
	if err != nil {
		return err
	}
	err = s.fill(r, q, c)
	if err == nil && !r.done { // Bytes ended it: the rest has to be read for the connection's sake
		err = s.pass(r, q)
	}
	if s.broken == nil {
		s.finish(r)
	}
	if err != nil {
		return err
	}
	same, err := s.still(ctx, &q.Table, sh)
	if err != nil {
		return err
	}
	if !same {
		return errShape
	}
	c.Shape = sh.table
	return nil
}

// reading is a result whose rows are being read.
type reading struct {
	sh    *shaped
	id    uint32 // of the statement
	maker *rowimage.Maker
	name  string
	rows  int
	done  bool
}

// start runs the statement for q.
func (s *session) start(ctx context.Context, sh *shaped, q *snapshot.Query) (*reading, error) {
	sql, err := sh.statement(q, true)
	if err != nil {
		return nil, &snapshot.TableError{Code: "shape", What: "read " + sh.table.Subject(), Cure: "start the snapshot of the table again", Err: err}
	}
	id, err := s.prepare(sql)
	if err != nil {
		return nil, s.refused(ctx, sh, q, err)
	}
	r := &reading{sh: sh, id: id, name: sh.table.Schema + "." + sh.table.Name}
	execute := binary.LittleEndian.AppendUint32([]byte{gomysql.COM_STMT_EXECUTE}, id)
	execute = append(execute, 0, 1, 0, 0, 0) // no cursor: the rows stream
	if err := s.conn.Send(execute); err != nil {
		return nil, s.lost(err)
	}
	codes, err := s.packets.columns()
	if err != nil {
		return nil, s.trouble(q, err)
	}
	t := sh.table
	if q.Scout {
		t = sh.keyed
	}
	if r.maker, err = rowimage.New(t, codes); err != nil {
		s.broken = err
		return nil, &snapshot.TableError{Code: "shape", What: "the table " + r.name + " cannot be read", Cure: "upgrade Leat", Err: err}
	}
	return r, nil
}

func (s *session) prepare(sql string) (uint32, error) {
	if err := s.conn.Send(append([]byte{gomysql.COM_STMT_PREPARE}, sql...)); err != nil {
		return 0, err
	}
	return s.packets.prepared()
}

// fill reads rows until the query's limits or the end.
func (s *session) fill(r *reading, q *snapshot.Query, c *snapshot.Chunk) error {
	limited := q.Limit > 0 && !q.Scout && len(q.Keys) == 0
	for {
		if q.Bytes > 0 && len(c.Arena) >= q.Bytes && len(c.Rows) > 0 {
			c.More = true
			return nil
		}
		if limited && len(q.Table.Key) == 0 && len(c.Rows) >= q.Limit {
			c.More = true
			return nil
		}
		b, err := s.packets.answer()
		if err != nil {
			return s.trouble(q, err)
		}
		if over(b) {
			r.done = true
			return nil
		}
		r.rows++
		if limited && len(c.Rows) >= q.Limit {
			c.More = true // this row only tells that there are more
			continue
		}
		off := len(c.Arena)
		if c.Arena, err = r.maker.Append(c.Arena, b); err != nil {
			s.broken = err
			return &snapshot.TableError{Code: "structure", What: fmt.Sprintf("row %d of a read of %s", r.rows, r.name), Cure: "upgrade Leat if a newer version knows the form", Err: err}
		}
		c.Rows = append(c.Rows, pipeline.Span{Off: uint32(off), Len: uint32(len(c.Arena) - off)})
	}
}

// pass reads what is left of a result.
func (s *session) pass(r *reading, q *snapshot.Query) error {
	for {
		b, err := s.packets.answer()
		if err != nil {
			return s.trouble(q, err)
		}
		if over(b) {
			r.done = true
			return nil
		}
	}
}

// finish lets go of the statement; the server does not answer.
func (s *session) finish(r *reading) {
	if s.packets.left() > 0 {
		s.broken = errAnswer
		return
	}
	if err := s.conn.Send(binary.LittleEndian.AppendUint32([]byte{gomysql.COM_STMT_CLOSE}, r.id)); err != nil {
		s.broken = err
	}
}

// refused says why a statement was not taken: without the condition it may be.
func (s *session) refused(ctx context.Context, sh *shaped, q *snapshot.Query, err error) error {
	var my *gomysql.MyError
	if !errors.As(err, &my) {
		return s.lost(err)
	}
	if q.Where != "" {
		plain, perr := sh.statement(q, false)
		if perr == nil {
			var id uint32
			if id, perr = s.prepare(plain); perr == nil {
				s.finish(&reading{id: id})
				return &snapshot.TableError{Code: "where", What: "the condition does not fit the table " + sh.table.Schema + "." + sh.table.Name, Cure: "give a condition that stands behind WHERE in a SELECT from this table", Err: my}
			}
		}
	}
	if my.Code == erUnknownColumn || my.Code == erDefChanged {
		delete(s.known, sh.table.Schema+"."+sh.table.Name)
		return errShape
	}
	return s.trouble(q, err)
}

// trouble says what an error in the middle of an answer means. The server's own errors end the answer, and leave the
// connection as it was.
func (s *session) trouble(q *snapshot.Query, err error) error {
	switch number(err) {
	case 0:
		return s.lost(err)
	case erDefChanged:
		delete(s.known, q.Table.Schema+"."+q.Table.Name)
		return errShape
	}
	if f := faulty(&q.Table, err); f != err {
		return f
	}
	return s.db.cfg.Failed("read "+q.Table.Schema+"."+q.Table.Name, err)
}

func (s *session) lost(err error) error {
	s.broken = err
	return s.db.cfg.Failed("read a table", err)
}
