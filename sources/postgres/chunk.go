package postgres

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// rowReader is a connection on which chunks are read: a snapshot.Session.
type rowReader struct {
	d     *Snapshots
	s     *Source // whose server it reads
	c     *catalog
	plans map[string]*plan
	// whole is the connection and plan of a consistent read that is open; it is c, unless c is a replica's.
	whole *plan
	at    *catalog
	rows  int // the next part of it
}

func (r *rowReader) connect(ctx context.Context, s *Source) (c *catalog, err error) {
	config := s.plain.Copy()
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &wide{conn, bufio.NewReaderSize(conn, wideBuffer)}, nil
	}
	if c, err = s.catalogBy(ctx, config); err != nil {
		return nil, err
	}
	if _, err := c.conn.PgConn().Exec(ctx, readSettings).ReadAll(); err != nil {
		c.close()
		return nil, s.failure("set up the reading of rows", err)
	}
	return c, nil
}

// wide takes what the socket holds at once: pgx asks for 8 KiB at a time.
type wide struct {
	net.Conn
	r *bufio.Reader
}

const wideBuffer = 256 << 10

func (w *wide) Read(p []byte) (int, error) { return w.r.Read(p) }

// Close ends the connection.
func (r *rowReader) Close() error {
	if r.at != nil && r.at != r.c {
		r.at.close()
	}
	r.c.close()
	return nil
}

// Read reads a chunk; see snapshot.Session.
func (r *rowReader) Read(ctx context.Context, q snapshot.Query, c *snapshot.Chunk) error {
	err := r.read(ctx, &q, c)
	if err == nil {
		return nil
	}
	var te *snapshot.TableError
	if e := r.d.tableError(&q, err); e != nil {
		te = e
	} else if !errors.As(err, &te) {
		if e := r.locked(q.Table, err); e != nil {
			return e
		}
		return r.s.failure("read rows of table "+quoteTable(q.Table.Schema, q.Table.Name), err)
	}
	if _, rerr := r.c.conn.PgConn().Exec(ctx, "rollback").ReadAll(); rerr != nil {
		return r.s.failure("read rows", rerr)
	}
	return te
}

// locked says who was waited for in vain; nil when err is of something else.
func (r *rowReader) locked(t snapshot.Table, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "55P03" {
		return nil
	}
	return &pipeline.SourceError{Code: CodeServer, What: fmt.Sprintf("source %s: read rows of table %s", r.s.cfg.Name, quoteTable(t.Schema, t.Name)),
		Err: errors.New("somebody holds a lock on it, or on another table of the publication"), Cure: "it is tried again by itself; see pg_locks for who holds one that lasts"}
}

func (r *rowReader) read(ctx context.Context, q *snapshot.Query, c *snapshot.Chunk) error {
	if q.Rest {
		return r.part(ctx, q, c)
	}
	if err := snapshot.CheckCondition(q.Where, snapshot.Postgres); err != nil {
		return &snapshot.TableError{Code: "where", What: "the condition cannot be used on table " + quoteTable(q.Table.Schema, q.Table.Name), Cure: "mend it: it is put behind WHERE, within brackets", Err: err}
	}
	if r.s != r.d.s && len(q.Table.Key) > 0 {
		if err := r.caughtUp(ctx); err != nil {
			return err
		}
	}
	name := q.Table.Schema + "." + q.Table.Name
	p := r.plans[name]
	if p == nil {
		p = &plan{}
	}
	for range 10 {
		print, err := r.chunk(ctx, q, p, c)
		if err != nil || print == "" {
			return err
		}
		if p, err = r.plan(ctx, q, print); err != nil { // there is none, or the table changed
			return err
		}
		r.plans[name] = p
		c.Reset()
	}
	return fmt.Errorf("the shape of table %s changes all the time", name)
}

// caughtUp waits until a replica has replayed what stood before the last watermark, as long as it goes on replaying.
func (r *rowReader) caughtUp(ctx context.Context) error {
	want, last, moved := r.d.replayed(), pglogrepl.LSN(0), time.Now()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		var text *string
		if err := r.c.conn.QueryRow(ctx, "select case when pg_is_in_recovery() then coalesce(pg_last_wal_replay_lsn(), '0/0')::text end").Scan(&text); err != nil {
			return err
		}
		if text == nil {
			return &pipeline.SourceError{Code: CodeStandby, What: fmt.Sprintf("source %s: the server of the snapshot's url is no replica", r.s.cfg.Name), Cure: "name a standby of the source's server, or take the url away"}
		}
		at := lsnOf(*text)
		if at >= want {
			return nil
		}
		if at != last {
			last, moved = at, time.Now()
		}
		if time.Since(moved) > r.s.cfg.LookupTimeout {
			return &pipeline.SourceError{Code: CodeServerBehind, What: fmt.Sprintf("source %s: read rows from the replica", r.s.cfg.Name),
				Err:  fmt.Errorf("the replica is behind: it has stood at %s for %s, and rows are read from %s on", at, r.s.cfg.LookupTimeout, want),
				Cure: "see on it whether its replay is paused (pg_wal_replay_resume) and whether it is connected to the source's server; it is tried again by itself"}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

const beginRead = "begin transaction isolation level repeatable read read only"

// chunk reads within one transaction of its own. print is not empty when the plan does not hold.
func (r *rowReader) chunk(ctx context.Context, q *snapshot.Query, p *plan, c *snapshot.Chunk) (print string, err error) {
	if len(q.Table.Key) == 0 {
		return r.beginWhole(ctx, q, p, c)
	}
	b := &pgconn.Batch{}
	p.begin(b)
	r.ask(b, q)
	if p.print != "" {
		sql, args, types, err := p.query(q)
		if err != nil {
			return "", &snapshot.TableError{Code: "key", What: err.Error(), Cure: "begin the table's snapshot anew: leat backfill"}
		}
		b.ExecParams(sql, args, types, nil, nil)
		p.look(b)
	}
	b.ExecParams("commit", nil, nil, nil, nil)
	results := r.c.conn.PgConn().ExecBatch(ctx, b)
	print, err = r.take(results, q, p, c)
	return print, errors.Join(err, results.Close())
}

// begin queues the transaction's begin and the table's lock. The lock takes no snapshot, and stands before what does: a
// table that a statement such as ALTER TABLE has rewritten is empty to every older snapshot.
// https://www.postgresql.org/docs/current/mvcc-caveats.html
func (p *plan) begin(b *pgconn.Batch) {
	b.ExecParams(beginRead, nil, nil, nil, nil)
	if p.lock != "" {
		b.ExecParams(p.lock, nil, nil, nil, nil)
	}
}

// look queues, behind the read, the question that stands for a lock before it.
func (p *plan) look(b *pgconn.Batch) {
	if p.lock == "" {
		b.ExecParams(rewritten, [][]byte{[]byte(strconv.FormatUint(uint64(p.oid), 10))}, []uint32{textOID}, nil, nil)
	}
}

// ask queues the question after the transactions that the read sees and the table's fingerprint.
func (r *rowReader) ask(b *pgconn.Batch, q *snapshot.Query) {
	b.ExecParams("select pg_current_snapshot()::text, ("+fingerprint+")",
		[][]byte{[]byte(q.Table.Schema), []byte(q.Table.Name), []byte(r.s.cfg.Publication)}, []uint32{textOID, textOID, textOID}, nil, nil)
}

const textOID = 25

// take reads the answers.
func (r *rowReader) take(results *pgconn.MultiResultReader, q *snapshot.Query, p *plan, c *snapshot.Chunk) (print string, err error) {
	n := 0
	if p.lock != "" {
		n = -1
	}
	for ; results.NextResult(); n++ {
		rows := results.ResultReader()
		switch {
		case n == 1 && rows.NextRow():
			v := rows.Values()
			if v[1] == nil {
				return "", &snapshot.TableError{Code: "dropped", What: "table " + quoteTable(q.Table.Schema, q.Table.Name) + " is not there any more"}
			}
			if print = string(v[1]); print == p.print {
				print = ""
			}
			if r.s == r.d.s { // a replica replays in the log's order
				if c.Unseen, err = unseen(string(v[0])); err != nil {
					return "", err
				}
			}
		case n == 2 && p.print != "":
			c.Shape = p.shape
			p.rows(rows, q, c)
		case n == 3 && p.print != "" && p.lock == "" && rows.NextRow():
			if print == "" && string(rows.Values()[0]) == "true" {
				print = p.print // as it is; the read is done again
			}
		}
		if _, err := rows.Close(); err != nil {
			return "", err
		}
	}
	return print, nil
}

// rows takes over the rows of an answer as images of the stream.
func (p *plan) rows(rows *pgconn.ResultReader, q *snapshot.Query, c *snapshot.Chunk) {
	n := 0
	for rows.NextRow() {
		n++
		if c.More {
			continue // they were asked for; what is kept is enough
		}
		at := len(c.Arena)
		values := rows.Values()
		c.Arena = binary.BigEndian.AppendUint16(c.Arena, uint16(len(values)))
		for i, v := range values {
			switch {
			case v != nil:
				c.Arena = binary.BigEndian.AppendUint32(append(c.Arena, 't'), uint32(len(v)))
				c.Arena = append(c.Arena, v...)
			case q.Scout && !slices.Contains(p.shape.Identity, i):
				c.Arena = append(c.Arena, 'u')
			default:
				c.Arena = append(c.Arena, 'n')
			}
		}
		c.Rows = append(c.Rows, pipeline.Span{Off: uint32(at), Len: uint32(len(c.Arena) - at)})
		c.More = q.Bytes > 0 && len(c.Arena) >= q.Bytes && !q.Rest
	}
	if c.More && n == len(c.Rows) && n < q.Limit {
		c.More = false // the last one was the last
	}
	c.More = c.More || n >= q.Limit
}

// unseen reads xmin:xmax:xip,…: a transaction was not visible if it is listed or at or above xmax.
// https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT-PARTS
func unseen(text string) (func(id []byte) bool, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%q is no snapshot of transactions", text)
	}
	most, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no snapshot of transactions", text)
	}
	var listed []uint64
	for x := range strings.SplitSeq(parts[2], ",") {
		if n, err := strconv.ParseUint(x, 10, 64); err == nil {
			listed = append(listed, n)
		}
	}
	slices.Sort(listed)
	return func(id []byte) bool {
		n, ok := decimal(id)
		if !ok {
			return false // a message that stands in no transaction
		}
		full := most + uint64(int64(int32(n-uint32(most)))) // the stream's ids lack the upper half
		if full >= most {
			return true
		}
		_, found := slices.BinarySearch(listed, full)
		return found
	}, nil
}

func decimal(p []byte) (n uint32, ok bool) {
	for _, c := range p {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint32(c-'0')
	}
	return n, len(p) > 0
}

// beginWhole begins the consistent read of a table without a key and reads its first rows.
func (r *rowReader) beginWhole(ctx context.Context, q *snapshot.Query, p *plan, c *snapshot.Chunk) (print string, err error) {
	if r.at == nil {
		if r.at = r.c; r.s != r.d.s {
			if r.at, err = r.connect(ctx, r.d.s); err != nil {
				r.at = nil
				return "", err
			}
		}
	}
	b := &pgconn.Batch{}
	p.begin(b)
	r.ask(b, q)
	if p.print != "" {
		sql := "declare leat_whole no scroll cursor for select " + p.columns + " from " + p.from
		var where []string
		for _, w := range []string{p.filter, q.Where} {
			if w != "" {
				where = append(where, w+"\n")
			}
		}
		if len(where) > 0 {
			sql += " where (" + strings.Join(where, ") and (") + ")"
		}
		b.ExecParams(sql, nil, nil, nil, nil)
		p.look(b)
	}
	results := r.at.conn.PgConn().ExecBatch(ctx, b)
	was := r.s
	r.s = r.d.s // its own server
	print, err = r.take(results, q, &plan{print: p.print, lock: p.lock, oid: p.oid}, c)
	r.s = was
	if err = errors.Join(err, results.Close()); err != nil {
		return "", err
	}
	if print != "" {
		_, err = r.at.conn.PgConn().Exec(ctx, "rollback").ReadAll()
		return print, err
	}
	r.whole = p
	return "", r.part(ctx, q, c)
}

// part reads more of the consistent read.
func (r *rowReader) part(ctx context.Context, q *snapshot.Query, c *snapshot.Chunk) error {
	if r.whole == nil {
		return errors.New("no consistent read is open")
	}
	limit := q.Limit
	if r.rows > 0 {
		limit = min(limit, r.rows)
	}
	b := &pgconn.Batch{}
	b.ExecParams("fetch forward "+strconv.Itoa(limit)+" from leat_whole", nil, nil, nil, nil)
	results := r.at.conn.PgConn().ExecBatch(ctx, b)
	c.Shape = r.whole.shape
	for results.NextResult() {
		rows := results.ResultReader()
		part := *q
		part.Limit, part.Bytes = limit, 0
		r.whole.rows(rows, &part, c)
		if _, err := rows.Close(); err != nil {
			break
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	if r.rows = 0; q.Bytes > 0 && len(c.Arena) > q.Bytes && len(c.Rows) > 0 { // rows are large: fewer at a time
		r.rows = max(1, len(c.Rows)*q.Bytes/len(c.Arena))
	}
	if c.More {
		return nil
	}
	r.whole, r.rows = nil, 0
	_, err := r.at.conn.PgConn().Exec(ctx, "commit").ReadAll()
	return err
}
