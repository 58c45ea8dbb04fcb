package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/snapshot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a database whose changes come to a log late, and that changes whenever it is looked at.
type world struct {
	t       *rapid.T
	table   *schemas.Table
	rows    map[int]pipetest.Row
	queue   [][]pipetest.Change
	log     *pipetest.MemoryLog
	counter uint64
	broken  map[int]string // keys whose change the log lost: they do not change any more
	busy    int            // changes that are still to come
	target  map[int]pipetest.Row
	// Of a replica: what the database held, how much of that a fence made sure of, and what the last read saw.
	states       []map[int]pipetest.Row
	fenced, seen int
}

const keys = 12

// change commits one transaction.
func (w *world) change() {
	id := rapid.IntRange(1, keys).Draw(w.t, "id")
	if _, ok := w.broken[id]; ok {
		return
	}
	defer func() { w.states = append(w.states, maps.Clone(w.rows)) }()
	old, exists := w.rows[id]
	key := strconv.Itoa(id)
	row := pipetest.Row{key, strconv.Itoa(rapid.IntRange(0, 3).Draw(w.t, "namespace")), fmt.Sprint("p", rapid.IntRange(0, 99).Draw(w.t, "path"))}
	c := pipetest.Change{Table: w.table}
	switch n := rapid.IntRange(0, 9).Draw(w.t, "op"); {
	case !exists:
		c.Op, c.After = pipeline.OpInsert, row
		w.rows[id] = row
	case n < 2:
		c.Op, c.Before = pipeline.OpDelete, pipetest.Row{key, pipetest.Absent, pipetest.Absent}
		delete(w.rows, id)
	case n < 5: // the path is not sent
		row[2] = old[2]
		c.Op, c.After = pipeline.OpUpdate, pipetest.Row{row[0], row[1], pipetest.Absent}
		w.rows[id] = row
	default:
		c.Op, c.After = pipeline.OpUpdate, row
		w.rows[id] = row
	}
	w.queue = append(w.queue, []pipetest.Change{c})
}

// lose makes the log miss a change of a key that it knows.
func (w *world) lose(id int) {
	old, exists := w.rows[id]
	if _, ok := w.broken[id]; ok || !exists {
		return
	}
	w.drain(0)
	if rapid.Bool().Draw(w.t, "delete") {
		delete(w.rows, id)
		w.broken[id] = "extra"
		return
	}
	w.rows[id] = pipetest.Row{old[0], old[1], old[2] + "!"}
	w.broken[id] = "different"
}

func (w *world) drain(leave int) {
	for len(w.queue) > leave {
		w.counter++
		w.apply(w.queue[0][0])
		b := pipetest.Build(pipeline.Position{Counter: w.counter, Token: "t"}, time.Unix(int64(w.counter), 0), w.queue[0])
		w.queue = w.queue[1:]
		if _, err := w.log.Append(context.Background(), b); err != nil {
			w.t.Fatal(err)
		}
	}
}

// tick is what happens while somebody looks.
func (w *world) tick() {
	for range rapid.IntRange(0, 3).Draw(w.t, "changes") {
		if w.busy > 0 {
			w.busy--
			w.change()
		}
	}
	w.drain(rapid.IntRange(0, len(w.queue)).Draw(w.t, "behind"))
}

func (w *world) fence(context.Context) (pipeline.Offset, error) {
	w.drain(0)
	_, next := w.log.Bounds()
	w.fenced = len(w.states)
	w.tick()
	return next, nil
}

// lagging is what a replica shows: something between the last fence and now, and never what was before.
func (w *world) lagging() map[int]pipetest.Row {
	w.seen = rapid.IntRange(max(w.fenced, w.seen), len(w.states)).Draw(w.t, "lag")
	if w.seen == 0 {
		return nil
	}
	return w.states[w.seen-1]
}

type session struct {
	w    *world
	rows func() map[int]pipetest.Row
}

func (s *session) Close() error { return nil }

func (s *session) Read(_ context.Context, q snapshot.Query, c *snapshot.Chunk) error {
	s.w.tick()
	defer s.w.tick()
	c.Shape = s.w.table
	rows := s.rows()
	for id := 1; id <= keys; id++ {
		row, ok := rows[id]
		key := []byte(strconv.Itoa(id))
		if after, _ := strconv.Atoi(string(q.After)); !ok || q.Keys == nil && id <= after ||
			q.Keys != nil && !slices.ContainsFunc(q.Keys, func(k []byte) bool { return string(k) == string(key) }) {
			continue
		}
		if q.Keys == nil && len(c.Rows) == min(q.Limit, 5) {
			c.More = true
			return nil
		}
		off := uint32(len(c.Arena))
		c.Arena = pipetest.AppendTuple(c.Arena, row)
		c.Rows = append(c.Rows, pipeline.Span{Off: off, Len: uint32(len(c.Arena)) - off})
	}
	return nil
}

// TestFindsWhatIsDifferent: exactly the keys whose change was lost are reported, whatever else changes meanwhile.
func TestFindsWhatIsDifferent(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, table: pipetest.FilesTable("files"), rows: map[int]pipetest.Row{}, target: map[int]pipetest.Row{}, log: pipetest.NewMemoryLog("log", 1000), broken: map[int]string{}}
		defer w.log.Close()
		for range rapid.IntRange(0, 30).Draw(t, "history") {
			w.change()
		}
		w.drain(0)
		for range rapid.IntRange(0, 3).Draw(t, "losses") {
			w.lose(rapid.IntRange(1, keys).Draw(t, "lost"))
		}
		w.busy = rapid.IntRange(0, 40).Draw(t, "busy")
		o := w.options(dir, rapid.Bool().Draw(t, "in files"))
		if rapid.Bool().Draw(t, "from a replica") {
			w.states, w.fenced = []map[int]pipetest.Row{maps.Clone(w.rows)}, 1 // with what was lost
			o.Source = func(context.Context) (snapshot.Session, error) { return &session{w, w.lagging}, nil }
		}
		report, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		w.check(report)
	})
}

func (w *world) options(dir string, small bool) Options {
	memory := int64(1 << 20)
	if small {
		memory = 2 << 10 // three lines
	}
	return Options{Subscription: "s", Log: w.log, Tables: []snapshot.Table{{Schema: "public", Name: "files", Key: []string{"id"}}}, Dir: dir, Memory: memory,
		Source: func(context.Context) (snapshot.Session, error) {
			return &session{w, func() map[int]pipetest.Row { return w.rows }}, nil
		},
		Whole: func(string) bool { return true }, Fence: w.fence, Form: pipetest.PGForm,
		Select: func(b *pipeline.Batch, from, to int, runs []pipeline.Run) []pipeline.Run {
			return append(runs, pipeline.Run{Batch: b, From: uint32(from), To: uint32(to)})
		},
		KeyOf: func(t *schemas.Table, image []byte) ([]byte, error) {
			refs, err := pipetest.PGForm(t).Walk(image, nil, 1)
			if err != nil {
				return nil, err
			}
			return slices.Clone(refs[0].Of(image)), nil
		},
		KeyText: func(b *pipeline.Batch, i int) string {
			refs, err := pipetest.PGForm(w.table).Walk(image(b, i), nil, 1)
			if err != nil {
				w.t.Fatal(err)
			}
			return string(refs[0].Of(image(b, i)))
		},
	}
}

func (w *world) check(report *Report) {
	if len(report.Tables) != 1 || report.Tables[0].Error != "" {
		w.t.Fatalf("%+v", report)
	}
	found := map[int]string{}
	for _, d := range report.Tables[0].Differences {
		id, _ := strconv.Atoi(d.Key)
		found[id] = d.Kind
	}
	for id, kind := range w.broken {
		if found[id] != kind {
			w.t.Fatalf("key %d is %s, found: %v", id, kind, found)
		}
	}
	if len(found) != len(w.broken) || report.Equal() != (len(w.broken) == 0) {
		w.t.Fatalf("found %v, lost %v", found, w.broken)
	}
	var source, other uint64
	for _, r := range report.Tables[0].Ranges {
		source, other = source+r.SourceRows, other+r.OtherRows
		if len(w.broken) == 0 && r.SourceSum != r.OtherSum && report.Tables[0].Partial == 0 {
			w.t.Fatalf("sums differ: %+v", r)
		}
	}
	if len(w.broken) == 0 && source != other {
		w.t.Fatalf("%d rows against %d", source, other)
	}
}

// TestTargetIsCompared: a target that applies the log is equal, one that lost a row is not.
func TestTargetIsCompared(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, table: pipetest.FilesTable("files"), rows: map[int]pipetest.Row{}, target: map[int]pipetest.Row{}, log: pipetest.NewMemoryLog("log", 1000), broken: map[int]string{}}
		defer w.log.Close()
		for range rapid.IntRange(1, 30).Draw(t, "history") {
			w.change()
		}
		w.drain(0)
		o := w.options(dir, false)
		lost := rapid.IntRange(1, keys).Draw(t, "lost")
		if _, ok := w.rows[lost]; ok {
			w.broken[lost] = "missing"
			delete(w.target, lost)
		}
		w.busy = rapid.IntRange(0, 40).Draw(t, "busy")
		o.Target = func(_ context.Context, table snapshot.Table) (snapshot.Session, snapshot.Table, error) {
			return &session{w, func() map[int]pipetest.Row { return w.target }}, table, nil
		}
		report, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		w.check(report)
	})
}

// apply brings the target up to a transaction.
func (w *world) apply(c pipetest.Change) {
	id, _ := strconv.Atoi(key(c))
	if _, lost := w.broken[id]; lost || c.After == nil {
		delete(w.target, id)
		return
	}
	row := slices.Clone(c.After)
	if row[2] == pipetest.Absent {
		row[2] = w.target[id][2]
	}
	w.target[id] = row
}

func key(c pipetest.Change) string {
	if c.After != nil {
		return c.After[0]
	}
	return c.Before[0]
}
