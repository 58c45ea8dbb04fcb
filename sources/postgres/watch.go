package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// watcher looks into the catalogue every few seconds and lets tables join that were created later.
type watcher struct {
	s      *Source
	st     *Stream
	c      *catalog
	cancel context.CancelFunc
	done   chan struct{}
	enums  string          // fingerprint
	told   map[string]bool // what was said already, by table
	joined []joined        // not known yet whether they had rows

	mu   sync.Mutex
	mail []pipeline.Notice
}

// watch starts it; enums is the fingerprint from before the first type was looked up.
func (s *Source) watch(st *Stream, c *catalog, made *ensured, enums string) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{s: s, st: st, c: c, cancel: cancel, done: make(chan struct{}), told: map[string]bool{}, enums: enums}
	go func() {
		defer close(w.done)
		w.took(ctx, made)
		w.run(ctx)
	}()
	return w
}

func (w *watcher) close() {
	w.cancel()
	<-w.done
}

func (w *watcher) run(ctx context.Context) {
	tick := time.NewTicker(w.s.cfg.CatalogInterval)
	defer tick.Stop()
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		w.gaps(ctx)
		w.calms(ctx)
		now, enums, err := w.c.prints(ctx, w.s.cfg.Publication)
		if err == nil && enums != w.enums { // the stream does not say when an enum gets a label
			w.enums = enums
			w.st.stale.Store(true)
			w.st.poke()
		}
		if err == nil && now == last {
			continue
		}
		var made *ensured
		if err == nil {
			made, err = w.s.ensurePublication(ctx, w.c, false)
		}
		if err != nil {
			if w.c.conn.IsClosed() { // only a new stream makes a new connection
				w.st.lost.Store(&err)
				w.st.poke()
				return
			}
			if ctx.Err() == nil {
				w.s.cfg.Observer.Warned("source "+w.s.cfg.Name, "new tables cannot be looked for: "+err.Error(), "")
			}
			continue
		}
		last = now
		if made.again {
			last = ""
		}
		w.took(ctx, made)
	}
}

// took tells of tables that joined or could not, and of those that moved.
func (w *watcher) took(ctx context.Context, made *ensured) {
	for t, why := range made.left {
		subject := schemas.Subject(t.schema, t.name)
		if w.told[subject] {
			continue
		}
		w.told[subject] = true
		cure := fmt.Sprintf("as its owner: alter publication %s add table %s", quote(w.s.cfg.Publication), w.s.item(t))
		w.s.cfg.Observer.Warned("source "+w.s.cfg.Name, fmt.Sprintf("table %s is not published: %s", subject, why), cure)
	}
	w.moved(ctx, made)
	w.joined = append(w.joined, made.joined...)
	w.gaps(ctx)
}

// gaps tells of the tables that joined with rows in them.
func (w *watcher) gaps(ctx context.Context) {
	w.joined = slices.DeleteFunc(w.joined, func(t joined) bool {
		rows, known, err := w.c.old(ctx, t)
		reason := "it had rows before it joined the publication"
		switch {
		case ctx.Err() != nil || err == nil && !known:
			return false
		case err != nil: // dropped meanwhile, or not ours to read
			reason = "it joined the publication late, and whether it had rows before cannot be seen: " + w.s.mask.text(err.Error())
		case !rows:
			return true
		}
		w.send(pipeline.Notice{
			Kind: pipeline.NoticeGap, Table: schemas.Subject(t.schema, t.name), Reason: reason, Cure: pipeline.BringRows, Time: time.Now().UTC(),
		})
		return true
	})
}

func (w *watcher) send(n pipeline.Notice) {
	w.mu.Lock()
	w.mail = append(w.mail, n)
	w.mu.Unlock()
	w.st.poke()
}

func (w *watcher) collect() []pipeline.Notice {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.mail
	w.mail = nil
	return m
}

// joined is a table that joined the publication, and the transaction by which it did.
type joined struct {
	*table
	xid string
}

// old reports whether the table has rows that were written before it joined. known is false as long as
// transactions run that began before: they may still write rows of which the stream knows nothing. Rows
// that such a one wrote afterwards travel and count as old all the same: a gap too many does no harm.
func (c *catalog) old(ctx context.Context, t joined) (rows, known bool, err error) {
	ctx, end := c.begin(ctx, "look for old rows")
	defer end(&err)
	err = c.conn.QueryRow(ctx, "select pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8", t.xid).Scan(&known)
	if err != nil || !known {
		return false, false, err
	}
	// Within 2³¹ transactions of each other, ages compare; frozen rows are oldest.
	err = c.patiently(ctx, "statement_timeout", func(tx pgx.Tx) error { // it may have to read the whole table
		return tx.QueryRow(ctx, "select exists (select from "+quoteTable(t.schema, t.name)+
			" where age(xmin) >= age($1::text::xid8::xid))", t.xid).Scan(&rows)
	})
	return rows, true, err
}
