package mysql

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

// plan is how a stream begins.
type plan struct {
	at place
	// until: the dump begins at the head of at.file, and what lies before this offset in it is only
	// read for its GTIDs. 0: nothing is passed over.
	until uint64
	// fresh: nothing is durable yet, so the place where reading begins is to be made so at once.
	fresh bool
	// found: at.file and at.pos say where the place by GTID is, so that the server need not look for it.
	found bool
	// given are prepared transactions whose chunks the log has to drop first.
	given []waitingXA
}

// Open implements [pipeline.Source].
func (s *Source) Open(ctx context.Context, after pipeline.Position) (pipeline.Stream, error) {
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.open(ctx, c, after)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return st, nil
}

func (s *Source) open(ctx context.Context, c *conn, after pipeline.Position) (*stream, error) {
	v, vars, err := c.inspect(ctx)
	if err != nil {
		return nil, err
	}
	if !v.logBin {
		return nil, errBinlogOff
	}
	s.warn(c, v, vars)
	var p *plan
	if lost, anew := after.Lost(); anew {
		p, err = s.anew(ctx, c, v, lost)
	} else if after.Token == "" {
		p, err = s.first(ctx, c, v, s.start)
	} else {
		p, err = s.resume(ctx, c, v, after.Token)
	}
	if err != nil {
		return nil, err
	}
	if err := c.register(ctx, v, s.cfg.ServerID, s.cfg.Name); err != nil {
		return nil, err
	}
	if err := c.dump(ctx, s.cfg.ServerID, p); err != nil {
		return nil, err
	}
	return newStream(s, c, v, p, after.Counter)
}

// warn tells what a person should know at once; Check tells the rest.
func (s *Source) warn(c *conn, v *server, vars map[string]string) {
	if !c.secure && !s.url.loopback() {
		s.cfg.Observer.Warned("source "+s.cfg.Name, "the connection to the server is not encrypted", "put tls=required or tls=verify-full into the url")
	}
	if f := vars["binlog_format"]; f != "" && f != "ROW" {
		s.cfg.Observer.Warned("source "+s.cfg.Name, "binlog_format is "+f+": tables changed by statements are quarantined", "SET GLOBAL binlog_format=ROW (MySQL: SET PERSIST)")
	}
}

// dump starts the stream of events that the plan wants.
func (c *conn) dump(ctx context.Context, id uint32, p *plan) error {
	switch {
	case !p.at.byGTID || p.until > 0 || p.found:
		pos := p.at.pos
		if p.until > 0 {
			pos = 4
		}
		return c.dumpFile(id, p.at.file, uint32(pos), 0)
	case p.at.mariadb:
		return c.dumpMaria(ctx, id, p.at.last)
	}
	return c.dumpGTID(id, p.at.set)
}

// anew finds where reading begins when a person has accepted that the position was lost: by MySQL's GTIDs right
// behind what the server has purged, else now. Prepared transactions are given up, as their ends may lie in what was
// lost: one that commits later is told as a gap.
func (s *Source) anew(ctx context.Context, c *conn, v *server, lost string) (*plan, error) {
	at, err := parseToken(lost)
	if err != nil {
		return s.first(ctx, c, v, start{kind: startNow})
	}
	given := at.waiting
	at.waiting = nil
	p, err := s.behind(ctx, c, v, at)
	if err == nil {
		p.given = given
	}
	return p, err
}

// behind is the plan that begins behind what the server has purged where that can be, else now.
func (s *Source) behind(ctx context.Context, c *conn, v *server, at *place) (*plan, error) {
	if !at.byGTID || at.mariadb || v.mariadb || !v.gtids {
		return s.first(ctx, c, v, start{kind: startNow})
	}
	text, err := c.value(ctx, "SELECT @@global.gtid_purged")
	if err != nil {
		return nil, err
	}
	purged, err := gtid.Parse(text)
	if err != nil {
		return nil, err
	}
	at.set.Union(purged)
	if c.holds(ctx, v, at) != nil {
		return s.first(ctx, c, v, start{kind: startNow})
	}
	return &plan{at: *at, fresh: true}, nil
}

// first finds where reading begins when nothing is durable yet.
func (s *Source) first(ctx context.Context, c *conn, v *server, from start) (*plan, error) {
	p := &plan{at: place{mariadb: v.mariadb, byGTID: v.gtids, server: v.identity()}, fresh: true}
	if !v.gtids {
		return p, s.firstFile(ctx, c, v, p, from)
	}
	var err error
	text := from.text
	switch from.kind {
	case startFile:
		p.at.file, p.until = from.file, from.pos
		p.at.set, p.at.last = &gtid.Set{}, &gtid.MariaPos{}
		return p, nil
	case startEarliest:
		if v.mariadb { // the head of the first file tells its GTIDs
			p.at.file, err = c.firstBinlog(ctx)
			p.at.last, p.until = &gtid.MariaPos{}, 4
			return p, err
		}
		text, err = c.value(ctx, "SELECT @@global.gtid_purged")
	case startNow:
		if v.mariadb {
			text, err = c.nowMaria(ctx, v, p)
		} else {
			text, err = c.value(ctx, "SELECT @@global.gtid_executed")
		}
	}
	if err != nil {
		return nil, err
	}
	var perr error
	if v.mariadb {
		p.at.last, perr = gtid.ParseMaria(text)
	} else {
		p.at.set, perr = gtid.Parse(text)
	}
	if perr != nil {
		return nil, stopped("start", fmt.Sprintf("start: the server is %s", v.name()), "give a GTID set of this server's kind", perr)
	}
	if from.kind == startGTID {
		return p, c.holds(ctx, v, &p.at)
	}
	return p, nil
}

// looks is how often nowMaria looks for a moment in which nothing commits: each takes two round trips, and
// groups of commits leave such moments also where they are many.
const looks = 20

// nowMaria returns the GTIDs of what the binlog holds now and, where they can be told of one moment, notes in p where
// that is. By GTID alone the server reads its newest file from the head, which holds up the first event: by tens of
// milliseconds where 50,000 transactions stand in it, by more the fuller it is.
//
// The server counts a transaction before it moves the binlog's end behind it, so an end between two equal answers is
// theirs. (MySQL counts it behind that; there is no such moment to be seen.)
func (c *conn) nowMaria(ctx context.Context, v *server, p *plan) (string, error) {
	const sql = "SELECT @@global.gtid_binlog_pos"
	was, err := c.value(ctx, sql)
	for range looks {
		if err != nil {
			return "", err
		}
		file, pos, err := c.binlogEnd(ctx, v)
		if err != nil {
			return "", err
		}
		is, err := c.value(ctx, sql)
		if err != nil {
			return "", err
		}
		if is == was {
			if pos <= math.MaxUint32 { // more the dump command cannot say
				p.found, p.at.file, p.at.pos = true, file, pos
			}
			break
		}
		was = is
	}
	return was, err
}

// firstFile is first where GTIDs are off.
func (s *Source) firstFile(ctx context.Context, c *conn, v *server, p *plan, from start) (err error) {
	switch from.kind {
	case startGTID:
		return stopped("gtid_off", "start: a GTID set is given, but gtid_mode is not ON", "SET PERSIST gtid_mode=ON step by step on the server, or give FILE:OFFSET", nil)
	case startEarliest:
		p.at.file, err = c.firstBinlog(ctx)
		p.at.pos = 4
	case startNow:
		p.at.file, p.at.pos, err = c.binlogEnd(ctx, v)
	case startFile:
		p.at.file, p.at.pos = from.file, from.pos
	}
	p.far()
	return err
}

// far makes the plan read a file from its head where the offset is more than the dump command can say.
func (p *plan) far() {
	if p.at.pos > 1<<32-1 {
		p.until = p.at.pos
	}
}

// value runs a query that gives one value.
func (c *conn) value(ctx context.Context, sql string) (string, error) {
	row, err := c.row(ctx, sql)
	if err != nil {
		return "", err
	}
	return row[0], nil
}

// resume checks that the server can go on exactly behind the token.
func (s *Source) resume(ctx context.Context, c *conn, v *server, token string) (*plan, error) {
	at, err := parseToken(token)
	if err != nil {
		return nil, stopped("position_foreign", "resume", "the log belongs to another kind of source: remove the source's log (leat source remove NAME) and run it again", err)
	}
	if at.mariadb != v.mariadb {
		return nil, stopped("server_changed", fmt.Sprintf("the server is %s now, our position is of another kind (%.100s)", v.name(), token), cureStartOver, nil)
	}
	p := &plan{at: *at}
	if at.byGTID {
		return p, c.holds(ctx, v, at)
	}
	if at.server != v.identity() {
		return nil, stopped("server_changed", fmt.Sprintf("our position is file and offset on the server %s, this is %s: they mean nothing here", at.server, v.identity()),
			"point the url at the server that it was, or: "+cureStartOver+"; with gtid_mode=ON a failover keeps the position", nil)
	}
	p.far()
	return p, nil
}

// holds checks that the server has all transactions of the place, and still has all those behind it.
func (c *conn) holds(ctx context.Context, v *server, at *place) error {
	if v.mariadb {
		return c.holdsMaria(ctx, at.last)
	}
	if !v.gtids {
		return stopped("gtid_off", "gtid_mode is not ON any more, our position is a GTID set", "SET PERSIST gtid_mode=ON step by step on the server", nil)
	}
	ours := quote(at.set.String())
	row, err := c.row(ctx, fmt.Sprintf("SELECT GTID_SUBTRACT(%[1]s, @@global.gtid_executed), GTID_SUBTRACT(@@global.gtid_purged, %[1]s)", ours))
	if err != nil {
		return err
	}
	if row[0] != "" {
		return stopped("gtids_missing", "the server lacks transactions that we have: "+row[0], "point the url at the server that has them; where they are lost for good: "+cureStartOver, nil)
	}
	if row[1] != "" {
		return stopped("binlog_purged", "the server no longer has the binlog of transactions that we lack: "+row[1],
			cureStartOver+"; raise binlog_expire_logs_seconds so that it does not happen again", nil)
	}
	return nil
}

// holdsMaria compares our last GTIDs with the binlog's state. What was purged the server says itself
// when the dump begins.
func (c *conn) holdsMaria(ctx context.Context, at *gtid.MariaPos) error {
	text, err := c.value(ctx, "SELECT @@global.gtid_binlog_state")
	if err != nil {
		return err
	}
	state, perr := gtid.ParseMariaState(text)
	if perr != nil {
		return transient("protocol", "read gtid_binlog_state", perr)
	}
	var missing gtid.MariaPos
	for _, g := range at.Last {
		if !slices.ContainsFunc(state, func(h gtid.Maria) bool { return h.Domain == g.Domain && h.Server == g.Server && h.Seq >= g.Seq }) {
			missing.Set(g)
		}
	}
	if len(missing.Last) > 0 {
		return stopped("gtids_missing", "the server lacks transactions that we have: "+missing.String(), "point the url at the server that has them; where they are lost for good: "+cureStartOver, nil)
	}
	return nil
}
