package snapshot

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas"
)

// world is a database with its log, in virtual time: transactions enter the log in the order of their commits, and
// become visible to reads then or later. Its order of keys is not the one of their bytes or numbers.
type world struct {
	mu      sync.Mutex
	r       *rand.Rand
	log     []entry
	grown   chan struct{}
	seen    map[string]bool           // transactions that reads see
	rows    map[string]map[int]record // by table and key (of the table without a key: a number of its own): what reads see
	shapes  map[string]*schemas.Table
	version int
	ids     int
	free    int // next new key
	trouble float64
	hidden  map[lock]bool
	xa      bool // all transactions are prepared first
}

type lock struct {
	table string
	key   int
}

// record is a row: version grows with each change anywhere, big may be left out of events.
type record struct {
	version int
	big     string
}

// entry of the log: a transaction or a watermark.
type entry struct {
	id    string
	mark  string
	parts [][]pipetest.Change // more than one: it travels in chunks
	// prepared: its commit is an entry of its own, which has commit.
	prepared, commit bool
}

func newWorld(r *rand.Rand, rows int) *world {
	w := &world{r: r, grown: make(chan struct{}), seen: map[string]bool{}, rows: map[string]map[int]record{}, shapes: map[string]*schemas.Table{}, free: 1000, hidden: map[lock]bool{}}
	for _, name := range []string{"a", "b", "bag"} {
		w.rows[name] = map[int]record{}
		t := pipetest.FilesTable(name)
		if name == "bag" {
			c := *t
			c.Identity, c.Routing, c.FullBefore = nil, nil, true
			t = c.Seal()
		}
		w.shapes[name] = t
		for n := range rows {
			w.version++
			w.rows[name][n] = record{w.version, "big" + strconv.Itoa(n)}
		}
	}
	return w
}

func (w *world) append(e entry) {
	w.log = append(w.log, e)
	close(w.grown)
	w.grown = make(chan struct{})
}

func image(key int, r record) pipetest.Row {
	return pipetest.Row{strconv.Itoa(key), strconv.Itoa(r.version), r.big}
}

// transact commits something. It may become visible later than it enters the log.
func (w *world) transact() {
	w.mu.Lock()
	w.ids++
	id := strconv.Itoa(w.ids)
	late := w.xa || w.r.IntN(8) == 0
	var changes []pipetest.Change
	var undo []func() // what becomes visible
	locked := map[lock]bool{}
	for range 1 + w.r.IntN(4) {
		c, apply, keys := w.change(locked, late)
		if apply == nil {
			continue
		}
		for _, k := range keys {
			locked[k] = true
		}
		changes = append(changes, c)
		if late {
			undo = append(undo, apply)
			for _, k := range keys {
				w.hidden[k] = true
			}
		} else {
			apply()
		}
		if c.Op == pipeline.OpTruncate {
			break
		}
	}
	if len(changes) == 0 {
		w.mu.Unlock()
		return
	}
	e := entry{id: id, parts: [][]pipetest.Change{changes}, prepared: late && (w.xa || w.r.IntN(3) == 0)}
	if e.prepared || w.r.IntN(10) == 0 { // large
		cut := w.r.IntN(len(changes) + 1)
		e.parts = [][]pipetest.Change{changes[:cut], changes[cut:]}
	}
	w.append(e)
	w.seen[id] = !late
	wait := time.Duration(w.r.IntN(60)) * time.Millisecond
	w.mu.Unlock()
	if !late {
		return
	}
	go func() {
		time.Sleep(wait)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, f := range undo {
			f()
		}
		for k := range locked {
			delete(w.hidden, k)
		}
		w.seen[id] = true
		if e.prepared {
			w.append(entry{id: id, commit: true})
		}
	}()
}

// change makes up one change of a row that no transaction has locked.
func (w *world) change(mine map[lock]bool, late bool) (pipetest.Change, func(), []lock) {
	name := []string{"a", "a", "b", "bag"}[w.r.IntN(4)]
	t, rows := w.shapes[name], w.rows[name]
	if w.r.IntN(150) == 0 && !late && len(w.hidden) == 0 && len(mine) == 0 {
		return pipetest.Change{Op: pipeline.OpTruncate, Table: t}, func() { clear(rows) }, []lock{{name, -1}}
	}
	w.version++
	if len(rows) == 0 || w.r.IntN(4) == 0 {
		w.free++
		key, r := w.free, record{w.version, "new" + strconv.Itoa(w.version)}
		if name != "bag" && w.r.IntN(2) == 0 { // a key that was there once, perhaps
			key = w.r.IntN(100)
		}
		if _, ok := rows[key]; ok || w.hidden[lock{name, key}] || mine[lock{name, key}] {
			return pipetest.Change{}, nil, nil
		}
		return pipetest.Change{Op: pipeline.OpInsert, Table: t, After: image(key, r)}, func() { rows[key] = r }, []lock{{name, key}}
	}
	keys := make([]int, 0, len(rows))
	for k := range rows {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	key := keys[w.r.IntN(len(keys))]
	if w.hidden[lock{name, key}] || mine[lock{name, key}] {
		return pipetest.Change{}, nil, nil
	}
	old := rows[key]
	next := record{w.version, old.big}
	full := name == "bag"
	before := pipetest.Row{strconv.Itoa(key), pipetest.Absent, pipetest.Absent}
	if full {
		before = image(key, old)
	}
	partial := func(key int) pipetest.Row {
		row := image(key, next)
		if !full {
			row[2] = pipetest.Absent
		}
		return row
	}
	switch w.r.IntN(5) {
	case 0: // delete
		return pipetest.Change{Op: pipeline.OpDelete, Table: t, Before: before}, func() { delete(rows, key) }, []lock{{name, key}}
	case 1: // move to another key
		w.free++
		to := w.free
		if w.r.IntN(2) == 0 && !full {
			to = w.r.IntN(100)
		}
		if _, ok := rows[to]; ok || w.hidden[lock{name, to}] || mine[lock{name, to}] {
			return pipetest.Change{}, nil, nil
		}
		return pipetest.Change{Op: pipeline.OpUpdate, Table: t, Before: before, After: partial(to)}, func() { delete(rows, key); rows[to] = next }, []lock{{name, key}, {name, to}}
	case 2, 3: // the large column does not change
		c := pipetest.Change{Op: pipeline.OpUpdate, Table: t, After: partial(key)}
		if full {
			c.Before = before
		}
		return c, func() { rows[key] = next }, []lock{{name, key}}
	}
	next.big = "upd" + strconv.Itoa(w.version)
	c := pipetest.Change{Op: pipeline.OpUpdate, Table: t, After: image(key, next)}
	if full {
		c.Before = before
	}
	return c, func() { rows[key] = next }, []lock{{name, key}}
}

// pass lets some time pass, and sometimes fails.
func (w *world) pass(ctx context.Context, most time.Duration) error {
	w.mu.Lock()
	d, fails := time.Duration(w.r.Int64N(int64(most))), w.r.Float64() < w.trouble
	w.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
	}
	if fails {
		return errors.New("the connection is lost")
	}
	return nil
}

func (w *world) Tables(ctx context.Context, _ []string) ([]Table, error) {
	if err := w.pass(ctx, time.Millisecond); err != nil {
		return nil, err
	}
	return []Table{{Schema: "public", Name: "a", Key: []string{"id"}}, {Schema: "public", Name: "bag"}, {Schema: "public", Name: "b", Key: []string{"id"}}}, nil
}

func (w *world) Mark(ctx context.Context, id string) error {
	if err := w.pass(ctx, 4*time.Millisecond); err != nil {
		return err
	}
	w.mu.Lock()
	w.append(entry{mark: id})
	w.mu.Unlock()
	return w.pass(ctx, 4*time.Millisecond) // written, though it may fail
}

func (w *world) Settle(ctx context.Context) error {
	w.mu.Lock()
	var ids []string
	for id := range w.seen {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	for {
		w.mu.Lock()
		i := slices.IndexFunc(ids, func(id string) bool { return !w.seen[id] })
		w.mu.Unlock()
		if i < 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *world) Session(ctx context.Context) (Session, error) {
	return &worldSession{w: w}, w.pass(ctx, time.Millisecond)
}

func (w *world) Condition(*schemas.Table, []byte) (string, error) { return "", nil }

func (w *world) Key(t *schemas.Table, image []byte) ([]byte, error) {
	var x images
	key, ok := x.row(t, image)
	if !ok {
		return nil, errors.New("no key")
	}
	return append([]byte("key:"), key...), nil
}

type worldSession struct {
	w     *world
	whole [][]byte
}

func (*worldSession) Close() error { return nil }

// order is the database's: keys backwards, even ones first.
func order(a, b int) int {
	if a%2 != b%2 {
		return a%2 - b%2
	}
	return b - a
}

func keyOf(p []byte) int {
	n, _ := strconv.Atoi(string(p[len("key:")+4:]))
	return n
}

func (ws *worldSession) Read(ctx context.Context, q Query, c *Chunk) error {
	w := ws.w
	if err := w.pass(ctx, 20*time.Millisecond); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c.Shape = w.shapes[q.Table.Name]
	if q.Rest {
		return ws.rest(q, c)
	}
	seen := map[string]bool{}
	for id, is := range w.seen {
		seen[id] = is
	}
	c.Unseen = func(id []byte) bool { return !seen[string(id)] }
	rows := w.rows[q.Table.Name]
	var keys []int
	for k := range rows {
		switch {
		case q.Keys != nil && !slices.ContainsFunc(q.Keys, func(p []byte) bool { return keyOf(p) == k }):
		case q.After != nil && order(k, keyOf(q.After)) <= 0:
		case q.Until != nil && order(k, keyOf(q.Until)) > 0:
		default:
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, order)
	if q.Scout {
		if len(keys) >= q.Limit {
			add(c, pipetest.Row{strconv.Itoa(keys[q.Limit-1]), pipetest.Absent, pipetest.Absent})
		}
		return nil
	}
	if q.Table.Key == nil {
		ws.whole = nil
		for _, k := range keys {
			ws.whole = append(ws.whole, pipetest.AppendTuple(nil, image(k, rows[k])))
		}
		return ws.rest(q, c)
	}
	n := min(len(keys), q.Limit)
	c.More = len(keys) >= q.Limit
	if n > 1 && w.r.IntN(5) == 0 { // its bytes ended it
		n, c.More = 1+w.r.IntN(n-1), true
	}
	for _, k := range keys[:n] {
		add(c, image(k, rows[k]))
	}
	return nil
}

func (ws *worldSession) rest(q Query, c *Chunk) error {
	n := min(len(ws.whole), min(q.Limit, 7))
	for _, p := range ws.whole[:n] {
		at := len(c.Arena)
		c.Arena = append(c.Arena, p...)
		c.Rows = append(c.Rows, pipeline.Span{Off: uint32(at), Len: uint32(len(p))})
	}
	ws.whole = ws.whole[n:]
	c.More = len(ws.whole) > 0
	return nil
}

func add(c *Chunk, r pipetest.Row) {
	at := len(c.Arena)
	c.Arena = pipetest.AppendTuple(c.Arena, r)
	c.Rows = append(c.Rows, pipeline.Span{Off: uint32(at), Len: uint32(len(c.Arena) - at)})
}

// Open opens the log's stream. Positions count its entries.
func (w *world) Open(_ context.Context, after pipeline.Position) (pipeline.Stream, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &worldStream{w: w, at: int(after.Counter), r: rand.New(rand.NewPCG(w.r.Uint64(), 1)), done: make(chan struct{})}, nil
}

type worldStream struct {
	w    *world
	r    *rand.Rand
	at   int
	cut  bool
	open int // parts of the transaction at `at` that were handed out
	done chan struct{}
	once sync.Once
}

func (st *worldStream) Confirm(pipeline.Position) {}
func (st *worldStream) Close() error              { st.once.Do(func() { close(st.done) }); return nil }
func (st *worldStream) Cut(on bool)               { st.w.mu.Lock(); st.cut = on; st.w.mu.Unlock() }

func (st *worldStream) Next(ctx context.Context) (*pipeline.Batch, error) {
	for {
		st.w.mu.Lock()
		if st.at < len(st.w.log) {
			b := st.take()
			st.w.mu.Unlock()
			return b, nil
		}
		grown := st.w.grown
		st.w.mu.Unlock()
		select {
		case <-grown:
			time.Sleep(time.Duration(st.r.IntN(8)) * time.Millisecond) // so that batches hold more than one
		case <-st.done:
			return nil, errors.New("closed")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take makes the next batch.
func (st *worldStream) take() *pipeline.Batch {
	log := st.w.log
	if e := log[st.at]; len(e.parts) > 1 || e.commit {
		return st.large(e)
	}
	var txs [][]pipetest.Change
	var ids []string
	var marks []pipeline.Watermark
	for most := 1 + st.r.IntN(5); st.at < len(log) && len(log[st.at].parts) < 2 && !log[st.at].commit && (len(txs) == 0 || !st.cut) && len(txs) < most; st.at++ {
		if e := log[st.at]; e.mark != "" {
			marks = append(marks, pipeline.Watermark{ID: e.mark, Position: strconv.Itoa(st.at)})
		} else {
			txs, ids = append(txs, e.parts[0]), append(ids, e.id)
		}
		if st.cut && len(txs) == 1 {
			st.at++
			break
		}
	}
	b := pipetest.Build(pipeline.Position{Counter: uint64(st.at)}, time.Now(), txs...)
	for i, id := range ids {
		b.Txs[i].ID = b.PutString(id)
	}
	b.Watermarks = marks
	return b
}

func (st *worldStream) large(e entry) *pipeline.Batch {
	if st.open < len(e.parts) {
		b := pipetest.Build(pipeline.Position{}, time.Now(), e.parts[st.open])
		b.Kind, b.Open, b.Txs[0].Ends = pipeline.BatchChunk, e.id, false
		st.open++
		return b
	}
	st.open = 0
	st.at++
	b := pipetest.Build(pipeline.Position{Counter: uint64(st.at)}, time.Now(), nil)
	if b.Kind, b.Open = pipeline.BatchCommit, e.id; e.prepared {
		b.Kind, b.Txs = pipeline.BatchPrepared, nil
		return b
	}
	b.Txs[0].ID = b.PutString(e.id)
	return b
}
