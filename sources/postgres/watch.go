package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

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
	told   map[string]bool // what was said already, by table

	mu   sync.Mutex
	mail []pipeline.Notice
}

func (s *Source) watch(st *Stream, c *catalog, made *ensured) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{s: s, st: st, c: c, cancel: cancel, done: make(chan struct{}), told: map[string]bool{}}
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
		now, err := w.c.print(ctx, w.s.cfg.Publication)
		if err == nil && now == last {
			continue
		}
		var made *ensured
		if err == nil {
			made, err = w.s.ensurePublication(ctx, w.c, false)
		}
		if err != nil {
			if ctx.Err() == nil {
				w.s.cfg.Observer.Warned("source "+w.s.cfg.Name, "new tables cannot be looked for: "+err.Error(), "")
			}
			continue
		}
		last = now
		w.took(ctx, made)
	}
}

// took tells of tables that joined or could not.
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
	for _, t := range made.joined {
		if ctx.Err() != nil {
			return
		}
		rows, err := w.c.hadRows(ctx, t)
		if err != nil || !rows {
			continue
		}
		w.send(pipeline.Notice{
			Kind: pipeline.NoticeGap, Table: schemas.Subject(t.schema, t.name), Time: time.Now().UTC(),
			Reason: "it had rows before it joined the publication", Cure: "backfill the table",
		})
	}
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

// hadRows reports whether the table, which just joined, has rows that may be older than that.
func (c *catalog) hadRows(ctx context.Context, t *table) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var rows bool
	err := c.conn.QueryRow(ctx, "select exists (select from "+quoteTable(t.schema, t.name)+")").Scan(&rows)
	return rows, err
}
