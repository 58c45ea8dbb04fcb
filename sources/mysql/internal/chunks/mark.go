package chunks

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
)

// Where Leat may write, a watermark is a row of the signal table: the stream knows it by its table. What stands before
// that row in the binlog is visible when its commit returns, since servers commit in the order of the binlog
// (binlog_order_commits).
//
// Where it may not, a watermark is a place of the binlog, and the stream puts it there. On MariaDB it is the place of a
// consistent snapshot: what stands before it is visible. On MySQL it is the binlog's end, and what stands before it
// and is not visible yet owns its GTID still: these are Chunk.Unseen.

// signalState is whether the signal table can be written to.
type signalState uint8

const (
	signalUnknown signalState = iota
	signalWritten
	signalNot
)

// slots is how many rows of the signal table one source writes to, so that marks do not wait for one another.
const slots = 8

// Columns of the signal table, in order; the stream reads SignalID by its place, since the binlog may not name columns.
const (
	signalColumns = "source VARBINARY(255) NOT NULL, slot TINYINT UNSIGNED NOT NULL, id VARBINARY(255) NOT NULL, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (source, slot)"
	// SignalID is the place of the watermark's id among the table's columns. It begins with the source's name and /.
	SignalID = 2
)

// Mark implements [snapshot.Database].
func (d *Database) Mark(ctx context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.prepareSignal(ctx); err != nil {
		return err
	}
	var err error
	if d.signal == signalWritten {
		err = d.write(ctx, id)
	} else {
		err = d.point(ctx, id)
	}
	if err == nil && d.cfg.Replica {
		err = d.note(ctx)
	}
	return err
}

// prepareSignal finds out once how watermarks are made.
func (d *Database) prepareSignal(ctx context.Context) error {
	if err := d.connect(ctx); err != nil || d.signal != signalUnknown {
		return err
	}
	if d.cfg.Signal == "" {
		if err := d.mayPoint(""); err != nil {
			return err
		}
		d.signal = signalNot
		return nil
	}
	reason, err := d.trySignal(ctx)
	if err != nil {
		return err
	}
	if reason == "" {
		if !d.ordered && !d.server.GTIDs {
			return stopped("commit_order", "transactions become visible in another order than that of the binlog, and have no GTIDs to tell which are not visible yet", "SET GLOBAL binlog_order_commits=ON, or SET PERSIST gtid_mode=ON step by step", nil)
		}
		d.signal = signalWritten
		return nil
	}
	if err := d.mayPoint(reason); err != nil {
		return err
	}
	d.signal = signalNot
	d.cfg.Warned("snapshots of "+d.cfg.Name+" do not write to "+d.cfg.Signal+": "+reason, "nothing has to be done: watermarks are places of the binlog then; to have them as rows: "+d.grant())
	return nil
}

func (d *Database) grant() string {
	schema, _, _ := strings.Cut(d.cfg.Signal, ".")
	return "CREATE DATABASE " + ident(schema) + "; GRANT CREATE, INSERT, UPDATE ON " + ident(schema) + ".* TO the user of the url"
}

// mayPoint tells whether watermarks can be places, where for this reason they cannot be rows.
func (d *Database) mayPoint(reason string) error {
	if d.server.MariaDB || d.server.GTIDs {
		return nil
	}
	return stopped("watermark_table", "snapshots need a table to write watermarks to, since gtid_mode is not ON", d.grant(), because(reason))
}

func because(reason string) error {
	if reason == "" {
		return nil
	}
	return errors.New(reason)
}

// trySignal writes once, making the table where there is none; reason is why it cannot be.
func (d *Database) trySignal(ctx context.Context) (reason string, err error) {
	if d.format != nil {
		return "binlog_format is not ROW: " + d.format.Error(), nil
	}
	if reason, err = d.hidden(ctx); reason != "" || err != nil {
		return reason, err
	}
	err = d.write(ctx, "")
	switch number(err) {
	case erNoSuchTable, erUnknownDB:
		schema, _, _ := strings.Cut(d.cfg.Signal, ".")
		if _, err = d.rows(ctx, "CREATE DATABASE IF NOT EXISTS "+ident(schema)); err == nil || number(err) != 0 {
			if _, err = d.rows(ctx, "CREATE TABLE IF NOT EXISTS "+d.table()+" ("+signalColumns+") ENGINE=InnoDB"); err == nil {
				err = d.write(ctx, "")
			}
		}
	case erUnknownColumn:
		return "", stopped("watermark_table", "the table "+d.cfg.Signal+" has other columns than watermarks need", "drop it, or name another under snapshot.signal", err)
	}
	switch number(err) {
	case erDBAccess, erTableAccess, erColumnAccess, erAccess, erSpecific, erOption, erReadOnly, gomysql.ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION:
		return err.Error(), nil
	}
	return "", err
}

func (d *Database) table() string {
	schema, name, _ := strings.Cut(d.cfg.Signal, ".")
	return from(schema, name)
}

// write writes a row of the signal table.
func (d *Database) write(ctx context.Context, id string) error {
	h := fnv.New32a()
	h.Write([]byte(id))
	value := quote(d.cfg.Name + "/" + id)
	_, err := d.rows(ctx, fmt.Sprintf("INSERT INTO %s (source, slot, id) VALUES (%s, %d, %s) ON DUPLICATE KEY UPDATE id = %s, at = UTC_TIMESTAMP()",
		d.table(), quote(d.cfg.Name), h.Sum32()%slots, value, value))
	return err
}

// point makes a watermark of a place of the binlog. d.mu is held, but not while the stream is waited for.
func (d *Database) point(ctx context.Context, id string) error {
	at, err := d.visible(ctx)
	if err != nil {
		return err
	}
	maria := d.server.MariaDB
	d.mu.Unlock()
	stands, err := d.cfg.Await(ctx, id, at)
	d.mu.Lock()
	if err != nil || !maria {
		return err
	}
	// The stream may have been further than what is visible: it reads what is written and not yet committed.
	for before(at, stands) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
		if at, err = d.visible(ctx); err != nil {
			return err
		}
	}
	return nil
}

// visible returns a place of the binlog behind all that can be read now. On MariaDB all before it can be read as well.
func (d *Database) visible(ctx context.Context) (Place, error) {
	if d.server.MariaDB {
		if err := d.connect(ctx); err != nil {
			return Place{}, err
		}
		at, err := snapshotPlace(ctx, d.conn)
		if err == nil {
			_, err = d.conn.Rows(ctx, "ROLLBACK")
		}
		if err != nil {
			_ = d.drop()
		}
		return at, err
	}
	list, err := d.status(ctx)
	if err != nil {
		return Place{}, err
	}
	if len(list) == 0 {
		return Place{}, stopped("binlog_off", "the server writes no binlog", "start the server with log_bin (--log-bin)", nil)
	}
	at, err := place(list[0])
	if err != nil {
		return at, transient("protocol", "read the binlog's end", err)
	}
	return at, nil
}

// status asks for the binlog's end and what is kept out of it.
func (d *Database) status(ctx context.Context) ([][]string, error) {
	list, err := d.rows(ctx, "SHOW BINARY LOG STATUS")
	if number(err) == erParse {
		list, err = d.rows(ctx, "SHOW MASTER STATUS") // MySQL before 8.2, and MariaDB
	}
	return list, err
}

// hidden tells why rows of the signal table would not come into the binlog: what is logged as rows goes by the
// database of its table. A user who may not ask is not told.
// https://dev.mysql.com/doc/refman/8.4/en/replication-options-binary-log.html
func (d *Database) hidden(ctx context.Context) (reason string, err error) {
	list, err := d.status(ctx)
	if number(err) != 0 || err == nil && (len(list) == 0 || len(list[0]) < 4) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	schema, _, _ := strings.Cut(d.cfg.Signal, ".")
	in := func(names string) bool {
		return slices.ContainsFunc(strings.Split(names, ","), func(n string) bool {
			return n == schema || d.server.Fold && strings.EqualFold(n, schema)
		})
	}
	switch do, ignore := list[0][2], list[0][3]; {
	case do != "" && !in(do):
		return "binlog_do_db keeps the database " + schema + " out of the binlog (it has " + do + "): name a table of one of these under snapshot.signal", nil
	case do == "" && in(ignore):
		return "binlog_ignore_db keeps the database " + schema + " out of the binlog: name a table of another one under snapshot.signal", nil
	}
	return "", nil
}

// before tells whether one place lies before another. A file's number may have a digit more than that of the one before.
func before(a, b Place) bool {
	if a.File == b.File {
		return a.Pos < b.Pos
	}
	if len(a.File) != len(b.File) {
		return len(a.File) < len(b.File)
	}
	return a.File < b.File
}

// unseen returns which transactions may stand in the binlog and not be visible to what is read next; nil where there
// are none.
func (d *Database) unseen(ctx context.Context) (func([]byte) bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.connect(ctx); err != nil {
		return nil, err
	}
	if d.server.MariaDB || d.ordered && d.signal == signalWritten {
		return nil, nil
	}
	list, err := d.rows(ctx, "SELECT @@global.gtid_owned")
	if err != nil || list[0][0] == "" {
		return nil, err
	}
	return owned(list[0][0]), nil
}

// Settle implements [snapshot.Settler]: whoever is in the binlog and not visible yet owns its GTID. What the stream
// brought before the first watermark is not remembered, so they are waited for.
func (d *Database) Settle(ctx context.Context) error {
	waiting, err := d.owners(ctx)
	end := time.Now().Add(lag)
	for wait := time.Millisecond; err == nil && len(waiting) > 0; wait = min(2*wait, time.Second) {
		if time.Now().After(end) {
			return transient("commits_wait", "wait until what stands in the binlog can be read", fmt.Errorf("%d transactions have not committed within %s, the first is %s: "+
				"see SHOW PROCESSLIST and whether they wait for a replica's answer (rpl_semi_sync_source_timeout)", len(waiting), lag, slices.Min(waiting)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		var now []string
		now, err = d.owners(ctx)
		waiting = slices.DeleteFunc(waiting, func(id string) bool { return !slices.Contains(now, id) })
	}
	return err
}

// owners lists the GTIDs of those that may stand in the binlog and not be visible; none where that cannot be.
func (d *Database) owners(ctx context.Context) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.prepareSignal(ctx); err != nil {
		return nil, err
	}
	if d.server.MariaDB || d.ordered && d.signal == signalWritten {
		return nil, nil
	}
	list, err := d.rows(ctx, "SELECT @@global.gtid_owned")
	if err != nil {
		return nil, err
	}
	return slices.Collect(maps.Keys(gtids(list[0][0]))), nil
}

// owned returns whether a GTID stands in MySQL's list of those that threads own: uuid:4#12:5#13,uuid:tag:6#14.
func owned(list string) func([]byte) bool {
	in := gtids(list)
	return func(id []byte) bool { return in[strings.ToLower(string(id))] }
}

func gtids(list string) map[string]bool {
	in := map[string]bool{}
	for _, part := range strings.Split(strings.ToLower(strings.Join(strings.Fields(list), "")), ",") {
		words := strings.Split(part, ":")
		name := words[0]
		for _, w := range words[1:] {
			if n, _, ok := strings.Cut(w, "#"); ok {
				in[name+":"+n] = true
			} else {
				name = words[0] + ":" + w // a tag
			}
		}
	}
	return in
}

// note keeps what the replica has to have replayed before it is read.
func (d *Database) note(ctx context.Context) error {
	if !d.server.GTIDs {
		return stopped("gtid_off", "reading from a replica needs GTIDs, to tell when it has replayed a watermark", "SET PERSIST gtid_mode=ON step by step on both servers, or take snapshot.url away", nil)
	}
	sql := "SELECT @@global.gtid_executed"
	if d.server.MariaDB {
		sql = "SELECT @@global.gtid_binlog_pos"
	}
	list, err := d.rows(ctx, sql)
	if err == nil {
		d.reached.Store(list[0][0])
	}
	return err
}

// lag is how long a replica may take to replay a watermark before the read fails, to be tried again.
const lag = 60 * time.Second

// replayed waits until the replica has all that stood before the last watermark.
func (s *session) replayed(ctx context.Context) error {
	want, _ := s.db.reached.Load().(string)
	if !s.db.cfg.Replica || want == "" || want == s.waited {
		return nil
	}
	sql, ok := "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 1)", "0"
	if s.server.MariaDB {
		sql = "SELECT MASTER_GTID_WAIT(%s, 1)"
	}
	for end := time.Now().Add(lag); time.Now().Before(end); {
		list, err := s.conn.Rows(ctx, fmt.Sprintf(sql, quote(want)))
		if err != nil {
			return err
		}
		if len(list) == 1 && list[0][0] == ok {
			s.waited = want
			return nil
		}
	}
	return transient("replica_lags", "read from the replica", errors.New("it has not replayed what its primary wrote "+lag.String()+" ago"))
}
