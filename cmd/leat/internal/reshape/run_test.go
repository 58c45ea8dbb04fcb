package reshape

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/ingest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/form"
	"github.com/leat-cdc/leat/sinks/encode"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

const patience = 60 * time.Second

// rig is a source, its log, and a subscriber that reads it; the source stops and starts again at will.
type rig struct {
	t      *testing.T
	open   func(known func() []*schemas.Table) pipeline.Source
	log    *disklog.Log
	reader pipeline.LogReader
	encode *encode.Encoder
	sub    subscriber
	stop   func()

	mu      sync.Mutex
	notices []pipeline.Notice // guarded by mu
}

func newRig(t *testing.T, open func(known func() []*schemas.Table) pipeline.Source) *rig {
	t.Helper()
	log, err := disklog.Open(disklog.Options{Dir: t.TempDir(), Source: "src", SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	oldest, _ := log.Bounds()
	reader, err := log.Read(oldest)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, open: open, log: log, reader: reader, sub: subscriber{tables: map[string]*copied{}},
		encode: encode.JSON(encode.Options{Source: "src", Int64AsString: true, Form: form.Of})}
	t.Cleanup(func() {
		r.halt()
		if err := errors.Join(reader.Close(), log.Close()); err != nil {
			t.Error(err)
		}
	})
	r.start()
	return r
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done, streams := make(chan error, 1), make(chan struct{}, 1)
	cfg := ingest.Config{Name: "src", Source: r.open(r.log.Tables), Log: r.log, Form: form.Of, Backoff: 100 * time.Millisecond, MaxBackoff: time.Second,
		Observer: pipeline.Observer{
			Warned: func(place, what, cure string) { r.t.Log(place, what, cure) },
			Noticed: func(_ string, n pipeline.Notice) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.notices = append(r.notices, n)
			},
			SourceState: func(_, state string, err error) {
				if state == "streaming" {
					select {
					case streams <- struct{}{}:
					default:
					}
				}
				if err != nil {
					r.t.Log(state, err)
				}
			},
		}}
	go func() { done <- ingest.Run(ctx, cfg) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("ingest: %v", err)
		}
	}
	select {
	case <-streams:
	case <-time.After(patience):
		r.t.Fatal("the source does not stream")
	}
}

func (r *rig) halt() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

// until reads until the subscriber has the row of the marker.
func (r *rig) until(marker string, n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for {
		if m := r.sub.tables[marker]; m != nil && m.rows[strconv.Itoa(n)] != nil {
			return
		}
		b, err := r.reader.Next(ctx)
		if err != nil {
			r.fail(fmt.Errorf("wait for marker %d: %w", n, err))
		}
		for i := range b.Events {
			text, err := r.encode.Append(nil, b, i, b.Events[i].Op)
			if err == nil {
				err = r.sub.take(text)
			}
			if err != nil {
				r.fail(err)
			}
		}
		b.Release()
	}
}

func (r *rig) fail(err error) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Fatalf("%v\nnotices: %+v\nlast events:\n%s", err, r.notices, strings.Join(r.sub.log[max(0, len(r.sub.log)-60):], "\n"))
}

// database is a connection to the source.
type database interface {
	do(statement string) error
	rows(query string) (columns []string, rows [][]string, err error)
	prefix() string
	// told: a table that is gone is told at once, not with the next table of that name.
	told() bool
}

// size is how many changes of shape a run makes, and from which seed.
func size(t *testing.T) (changes int, seed uint64) {
	t.Helper()
	changes, seed = 30, rand.Uint64()
	for name, to := range map[string]func(n uint64){"LEAT_DDL": func(n uint64) { changes = int(n) }, "LEAT_SEED": func(n uint64) { seed = n }} {
		if text := os.Getenv(name); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			to(n)
		}
	}
	t.Logf("SEED=%d", seed)
	return changes, seed
}

// run makes a history on the database and compares the subscriber's tables with the source's again and again.
func run(t *testing.T, db database, d dialect, open func(known func() []*schemas.Table) pipeline.Source) {
	changes, seed := size(t)
	h := &history{Rand: rand.New(rand.NewPCG(seed, 1)), dialect: d, labels: []string{"low", "high"}}
	var made []string // the statements since the last comparison
	do := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			made = append(made, s)
			if err := db.do(s); err != nil {
				t.Fatalf("%s: %v\nbefore it:\n%s", s, err, strings.Join(made, ";\n"))
			}
		}
	}
	do("create table marker (n int primary key)")
	if d.transactional() {
		do("create type level as enum ('low', 'high')")
	}
	for range 4 {
		tab, text := h.create(h.fresh("t"))
		h.tables = append(h.tables, tab)
		do(text)
	}
	r := newRig(t, open)
	count, fresh, checks := map[string]int{}, 0, 0
	marker := func() {
		checks++
		do(fmt.Sprintf("insert into marker values (%d)", checks))
		if r.stop == nil {
			r.start()
		}
		r.until(db.prefix()+".marker", checks)
	}
	marker()
	for n := range changes {
		if r.stop != nil && h.IntN(20) == 0 {
			r.halt()
		}
		name, list := h.change()
		count[name]++
		within := h.transactional() && h.IntN(3) == 0 && !slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, "alter type") })
		if within {
			list = slices.Concat([]string{"begin", h.write(h.pick())}, list, []string{h.write(h.pick()), "commit"})
			list[1] = "select 1" // a write of before would name what the change has renamed
		}
		do(list...)
		for range h.IntN(9) {
			do(h.write(h.pick()))
		}
		if n%15 == 14 || n == changes-1 {
			for _, tab := range h.tables { // a change is told with the next row
				do(h.add(tab, 5000+n))
			}
			marker()
			fresh += compare(r, db, h, made)
			made = nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.notices {
		if n.Kind == pipeline.NoticeQuarantined {
			t.Errorf("quarantined: %+v", n)
		}
	}
	t.Logf("%d changes %v, %d writes, %d schema events of which %d say that rows changed without events, %d rows without key, %d rows compared", changes, count, h.writes, r.sub.schemas, r.sub.rewrote, r.sub.keyless, fresh)
	if fresh == 0 {
		t.Error("nothing was compared")
	}
}

func compare(r *rig, db database, h *history, made []string) (fresh int) {
	r.t.Helper()
	there := map[string]bool{db.prefix() + ".marker": true}
	for _, tab := range h.tables {
		subject := db.prefix() + "." + tab.name
		there[subject] = true
		columns, rows, err := db.rows("select * from " + tab.name)
		if err != nil {
			r.t.Fatal(err)
		}
		of, at := map[string]map[string]string{}, slices.Index(columns, tab.key)
		for _, cells := range rows {
			m := map[string]string{}
			for i, c := range columns {
				m[c] = cells[i]
			}
			of[cells[at]] = m
		}
		c := r.sub.tables[subject]
		if c == nil {
			r.fail(fmt.Errorf("%s: the subscriber never heard of it", subject))
		}
		diff, n := c.compare(columns, of)
		if fresh += n; len(diff) > 0 {
			r.fail(fmt.Errorf("%s differs:\n%s\nstatements:\n%s", subject, strings.Join(diff, "\n"), strings.Join(made, ";\n")))
		}
	}
	for subject, c := range r.sub.tables {
		if !there[subject] && db.told() && (len(c.rows) > 0 || len(c.columns) > 0) {
			r.fail(fmt.Errorf("%s: the subscriber still has it\nstatements:\n%s", subject, strings.Join(made, ";\n")))
		}
	}
	return fresh
}
