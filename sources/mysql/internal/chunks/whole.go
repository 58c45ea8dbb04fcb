package chunks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/sources/snapshot"
)

// A table without a key is read by one SELECT in a transaction whose place in the binlog is known, so that each
// transaction is either in it or behind it: MariaDB tells the place of a consistent snapshot; MySQL does not, but when
// the executed GTIDs are the same before and after, and none is on its way, they are what it saw.

// attempts is how often a quiet moment is looked for; between two of them a few statements pass.
const attempts = 50

// begin begins the read of a table without a key.
func (s *session) begin(ctx context.Context, q *snapshot.Query, c *snapshot.Chunk) error {
	for range 10 {
		r, err := s.open(ctx, q, c)
		if errors.Is(err, errShape) {
			if _, err = s.conn.Rows(ctx, "ROLLBACK"); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return errors.Join(err, s.leave(ctx))
		}
		s.whole = r
		return s.rest(ctx, q, c)
	}
	return transient("shape", "read "+q.Table.Schema+"."+q.Table.Name, errors.New("it changes all the time"))
}

// leave ends the transaction of a read that failed.
func (s *session) leave(ctx context.Context) error {
	s.whole = nil
	if s.broken != nil {
		return nil
	}
	_, err := s.conn.Rows(ctx, "ROLLBACK")
	return err
}

func (s *session) open(ctx context.Context, q *snapshot.Query, c *snapshot.Chunk) (*reading, error) {
	sh, err := s.shape(ctx, &q.Table)
	if err != nil {
		return nil, err
	}
	if len(sh.key) > 0 {
		return nil, &snapshot.TableError{Code: "shape", What: "the table " + q.Table.Schema + "." + q.Table.Name + " has a primary key now", Cure: "start the snapshot of the table again"}
	}
	if c.Unseen, c.Unsure, err = s.consistent(ctx); err != nil {
		return nil, err
	}
	// The table is locked against statements that change its shape from here to the transaction's end.
	if _, err = s.conn.Rows(ctx, "SELECT 1 FROM "+from(q.Table.Schema, q.Table.Name)+" LIMIT 0"); err != nil {
		if number(err) == erDefChanged {
			delete(s.known, q.Table.Schema+"."+q.Table.Name)
			return nil, errShape
		}
		return nil, faulty(&q.Table, err)
	}
	same, err := s.still(ctx, &q.Table, sh)
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, errShape
	}
	return s.start(ctx, sh, q)
}

// rest reads the next rows of the read that is under way.
func (s *session) rest(ctx context.Context, q *snapshot.Query, c *snapshot.Chunk) error {
	r := s.whole
	if r == nil {
		return transient("disconnected", "read "+q.Table.Schema+"."+q.Table.Name, errors.New("the read was lost with its connection"))
	}
	c.Shape = r.sh.table
	err := s.fill(r, q, c)
	if err == nil && !r.done {
		return nil
	}
	if s.broken == nil {
		s.finish(r)
	}
	return errors.Join(err, s.leave(ctx))
}

// consistent begins a transaction that reads what is true now, and returns who is not in it, nil when that is not known;
// unsure, when it says so of some who are.
func (s *session) consistent(ctx context.Context) (unseen func([]byte) bool, unsure bool, err error) {
	if s.server.MariaDB {
		unseen, err = s.consistentMaria(ctx)
		return unseen, false, err
	}
	const begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"
	if !s.server.GTIDs || s.db.cfg.Replica {
		_, err = s.conn.Rows(ctx, begin)
		return nil, false, err
	}
	for range attempts {
		before, err := s.executed(ctx)
		if err != nil {
			return nil, false, err
		}
		if _, err = s.conn.Rows(ctx, begin); err != nil {
			return nil, false, err
		}
		// Whoever is committed but not among the executed yet is still owned.
		list, err := s.conn.Rows(ctx, "SELECT @@global.gtid_owned")
		if err != nil {
			return nil, false, err
		}
		after, err := s.executed(ctx)
		if err != nil {
			return nil, false, err
		}
		if before == after && list[0][0] == "" {
			unseen, err = notIn(before)
			return unseen, false, err
		}
		if _, err = s.conn.Rows(ctx, "ROLLBACK"); err != nil {
			return nil, false, err
		}
	}
	list, err := s.conn.Rows(ctx, "SELECT @@global.gtid_owned")
	if err != nil {
		return nil, false, err
	}
	_, err = s.conn.Rows(ctx, begin)
	return owned(list[0][0]), true, err
}

func (s *session) executed(ctx context.Context) (string, error) {
	list, err := s.conn.Rows(ctx, "SELECT @@global.gtid_executed")
	if err != nil {
		return "", err
	}
	return list[0][0], nil
}

// consistentMaria asks for the place of the snapshot, and for the GTIDs at that place.
func (s *session) consistentMaria(ctx context.Context) (func([]byte) bool, error) {
	at, err := snapshotPlace(ctx, s.conn)
	if err != nil || s.db.cfg.Replica {
		return nil, err
	}
	list, err := s.conn.Rows(ctx, "SELECT BINLOG_GTID_POS("+quote(at.File)+", "+strconv.FormatUint(at.Pos, 10)+")")
	if err != nil || len(list) != 1 {
		return nil, err
	}
	last := map[string]uint64{} // by domain
	for _, g := range strings.Split(list[0][0], ",") {
		if domain, seq, ok := domainSeq(g); ok {
			last[domain] = seq
		}
	}
	return func(id []byte) bool {
		domain, seq, ok := domainSeq(string(id))
		return ok && seq > last[domain]
	}, nil
}

// snapshotPlace begins a transaction whose place in the binlog the server tells.
func snapshotPlace(ctx context.Context, c Conn) (Place, error) {
	if _, err := c.Rows(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"); err != nil {
		return Place{}, err
	}
	list, err := c.Rows(ctx, "SHOW STATUS LIKE 'binlog_snapshot_%'")
	if err != nil {
		return Place{}, err
	}
	row := make([]string, 2)
	for _, r := range list {
		switch strings.ToLower(r[0]) {
		case "binlog_snapshot_file":
			row[0] = r[1]
		case "binlog_snapshot_position":
			row[1] = r[1]
		}
	}
	at, err := place(row)
	if err != nil {
		return at, transient("protocol", "ask for the snapshot's place", err)
	}
	return at, nil
}

// domainSeq reads domain and sequence number of MariaDB's 0-1-100.
func domainSeq(g string) (domain string, seq uint64, ok bool) {
	domain, rest, ok := strings.Cut(strings.TrimSpace(g), "-")
	_, last, more := strings.Cut(rest, "-")
	seq, err := strconv.ParseUint(last, 10, 64)
	return domain, seq, ok && more && err == nil
}

// notIn returns whether a GTID is not in MySQL's set.
func notIn(set string) (func([]byte) bool, error) {
	in := map[string][][2]int64{} // by server, and tag
	for _, part := range strings.Split(strings.ToLower(strings.Join(strings.Fields(set), "")), ",") {
		words := strings.Split(part, ":")
		name := words[0]
		for _, w := range words[1:] {
			low, high, span := strings.Cut(w, "-")
			a, err := strconv.ParseInt(low, 10, 64)
			if err != nil { // a tag
				name = words[0] + ":" + w
				continue
			}
			b := a
			if span {
				if b, err = strconv.ParseInt(high, 10, 64); err != nil {
					return nil, fmt.Errorf("read the executed GTIDs: %w", err)
				}
			}
			in[name] = append(in[name], [2]int64{a, b})
		}
	}
	return func(id []byte) bool {
		text := strings.ToLower(string(id))
		at := strings.LastIndexByte(text, ':')
		if at < 0 {
			return false
		}
		n, err := strconv.ParseInt(text[at+1:], 10, 64)
		return err == nil && !slices.ContainsFunc(in[text[:at]], func(r [2]int64) bool { return r[0] <= n && n <= r[1] })
	}, nil
}
