package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pglogrepl"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/postgres/pgoutput"
)

// Large transactions are sent while they run, so that the server need not keep them in files until their commit and
// others go on meanwhile. One whose shape of a table the catalogue cannot show before it commits is read at its
// commit instead, as all are without streaming: the stream is opened again without, until that one has ended.
//
// A prepared transaction comes at COMMIT PREPARED (two_phase stays off): until then the server keeps the WAL
// from its begin on and sends it again after a restart, so nothing of it has to outlive a connection here.

// protocol is the part of START_REPLICATION that depends on the server and on what is streamed.
func protocol(version int, streaming bool) string {
	switch {
	case !streaming:
		return "proto_version '1', streaming 'off'"
	case version >= 16: // aborts say where they stand
		return "proto_version '4', streaming 'parallel'"
	}
	return "proto_version '2', streaming 'on'"
}

// streams reports whether running transactions may be asked for. On a standby the locks of the primary's
// transactions cannot be seen.
func (s *Source) streams(ctx context.Context, c *catalog) (bool, error) {
	s.mu.Lock()
	whole := s.whole
	s.mu.Unlock()
	if whole != 0 {
		return false, nil
	}
	standby, err := c.standby(ctx)
	return !standby, err
}

// Spill ends a stream that sends the transaction while it runs; see pipeline.Spiller.
func (st *Stream) Spill(open string) error {
	xid, ok := st.dec.Runs(open)
	if !ok {
		return nil
	}
	return st.again(&pgoutput.Unsettled{XID: xid, Reason: "what came of it holds more than half of what the log may take"})
}

// again is the error that ends a stream which is to be opened with or without running transactions.
func (st *Stream) again(err error) error {
	var u *pgoutput.Unsettled
	if !errors.As(err, &u) {
		return err
	}
	st.s.mu.Lock()
	st.s.whole = u.XID
	st.s.mu.Unlock()
	return &pipeline.SourceError{Code: CodeReopened, What: "source " + st.s.cfg.Name + ": the stream is opened again without running transactions", Err: u}
}

// resumed ends a stream without running transactions behind the one for which it was opened so.
func (st *Stream) resumed() error {
	calm := st.calm.Load()
	if calm == 0 || uint64(st.dec.Position()) < calm || st.dec.Inside() {
		return nil
	}
	st.s.mu.Lock()
	st.s.whole = 0
	st.s.mu.Unlock()
	return &pipeline.SourceError{Code: CodeReopened, What: "source " + st.s.cfg.Name + ": the stream is opened again with running transactions"}
}

// calms looks whether the transaction has ended for which the stream was opened without running ones.
func (w *watcher) calms(ctx context.Context) {
	if w.st.whole == 0 || w.st.calm.Load() != 0 {
		return
	}
	if at, over, err := w.c.ended(ctx, w.st.whole); err == nil && over {
		w.st.calm.Store(uint64(at))
		w.st.poke()
	}
}

// ended reports whether a transaction that was seen running runs no more, and a place behind its end.
func (c *catalog) ended(ctx context.Context, xid uint32) (at pglogrepl.LSN, over bool, err error) {
	const what = "look up a transaction"
	ctx, end := c.begin(ctx, what)
	defer end(&err)
	var text string
	err = c.conn.QueryRow(ctx, `select not exists(select from pg_locks where locktype = 'transactionid' and transactionid = $1::text::xid and granted
		and mode = 'ExclusiveLock'), pg_current_wal_insert_lsn()::text`, fmt.Sprint(xid)).Scan(&over, &text)
	if err != nil {
		return 0, false, c.s.failure(what, err)
	}
	at, err = parseLSN(text)
	return at, over, err
}

// settled says why the catalogue may not show what a running transaction makes of a table, "" when it does: it has
// ended meanwhile; or it has not touched the definition; or it holds the lock for that, but what the stream
// says of the table is what the catalogue does (TRUNCATE takes that lock as well).
func (s *Source) settled(ctx context.Context, c *catalog, xid uint32, rel *pgoutput.Relation) (why string, err error) {
	what := fmt.Sprintf("look up the locks of table %s.%s", rel.Schema, rel.Name)
	ctx, end := c.begin(ctx, what)
	defer end(&err)
	var exists, locked bool
	var columns []string
	err = c.conn.QueryRow(ctx, `with own as (select virtualtransaction from pg_locks where locktype = 'transactionid' and transactionid = $1::text::xid
			and granted and mode = 'ExclusiveLock')
		select exists(select from pg_class where oid = $2) or not exists(select from own),
		exists(select from pg_locks l join pg_database d on d.oid = l.database where d.datname = current_database() and l.locktype = 'relation'
			and l.relation = $2 and l.mode = 'AccessExclusiveLock' and l.virtualtransaction in (select virtualtransaction from own)),
		array(select concat_ws(' ', a.atttypid, a.atttypmod, a.attnum = any(i.indkey) is true, a.attname) from pg_attribute a
			left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
			where a.attrelid = $2 and a.attnum > 0 and not a.attisdropped order by a.attnum)`, fmt.Sprint(xid), rel.OID).Scan(&exists, &locked, &columns)
	switch {
	case err != nil:
		return "", s.failure(what, err)
	case !exists:
		return fmt.Sprintf("it created table %s.%s", rel.Schema, rel.Name), nil
	case locked && !(rel.Identity == pgoutput.IdentityDefault && slices.Equal(columns, described(rel))):
		return fmt.Sprintf("it holds the lock to change table %s.%s", rel.Schema, rel.Name), nil
	}
	return "", nil
}

// described lists what the stream says of the columns, as settled asks the catalogue.
func described(rel *pgoutput.Relation) []string {
	var all []string
	for _, c := range rel.Columns {
		key := "f"
		if c.Key {
			key = "t"
		}
		all = append(all, strings.Join([]string{fmt.Sprint(c.OID), fmt.Sprint(c.Mod), key, c.Name}, " "))
	}
	return all
}
