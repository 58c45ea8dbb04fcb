package deliver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const first = pipeline.Offset(1000)

// memory is a Store and Cursors that outlives a Subscription, as state on disk does.
type memory struct {
	mu      sync.Mutex
	cursors map[string]pipeline.Cursor
	dead    map[pipeline.Offset]pipeline.DeadLetter
	skips   []Skip
	parks   map[pipeline.ParkID]Park
	held    map[pipeline.Offset]pipeline.Held
	tables  map[[2]uint32]pipeline.HeldTable
	paused  map[string]string
	jobs    map[string]pipeline.Job
	saves   int
	buried  int // dead letters that were put, and parks
	fail    error
	dies    int // the n-th write of copies fails
	buries  int // the n-th write of dead letters or parks fails
}

// copying: m.mu is held.
func (m *memory) copying() error {
	if m.dies > 0 {
		if m.dies--; m.dies == 0 {
			m.fail = errors.New("the process dies")
		}
	}
	return m.fail
}

// burying: m.mu is held.
func (m *memory) burying() error {
	if m.buries > 0 {
		if m.buries--; m.buries == 0 {
			m.fail = errors.New("the process dies")
		}
	}
	return m.fail
}

func newMemory() *memory {
	return &memory{cursors: map[string]pipeline.Cursor{}, dead: map[pipeline.Offset]pipeline.DeadLetter{}, paused: map[string]string{},
		parks: map[pipeline.ParkID]Park{}, held: map[pipeline.Offset]pipeline.Held{}, tables: map[[2]uint32]pipeline.HeldTable{}, jobs: map[string]pipeline.Job{}}
}

// killed is what is on disk now.
func (m *memory) killed() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := newMemory()
	n.cursors, n.dead, n.parks, n.held, n.tables = maps.Clone(m.cursors), maps.Clone(m.dead), maps.Clone(m.parks), maps.Clone(m.held), maps.Clone(m.tables)
	n.paused, n.jobs, n.skips = maps.Clone(m.paused), maps.Clone(m.jobs), slices.Clone(m.skips)
	return n
}

func (m *memory) PutJob(_ context.Context, j pipeline.Job) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if old := m.jobs[j.ID]; old.State.Ended() || j.At < old.At {
		return fmt.Errorf("job goes back: %+v after %+v", j, old)
	}
	m.jobs[j.ID] = j
	return nil
}

func (m *memory) Jobs(context.Context, string) ([]pipeline.Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.jobs)), m.fail
}

func (m *memory) Load(_ context.Context, s string) (pipeline.Cursor, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.cursors[s]
	return c, ok, m.fail
}

func (m *memory) Save(_ context.Context, s string, c pipeline.Cursor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if old, ok := m.cursors[s]; ok && old.Log == c.Log && (c.Low < old.Low || c.Resolved < old.Resolved) {
		return fmt.Errorf("cursor goes back: %v after %v", c, old)
	}
	m.saves++
	m.cursors[s] = c
	return nil
}

func (m *memory) PutDeadLetters(_ context.Context, ds []pipeline.DeadLetter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.burying(); err != nil {
		return err
	}
	m.putDeadLetters(ds)
	return nil
}

func (m *memory) putDeadLetters(ds []pipeline.DeadLetter) {
	m.buried += len(ds)
	for _, d := range ds {
		m.dead[d.Offset] = d
	}
}

func (m *memory) DeleteDeadLetters(_ context.Context, _ string, offsets []pipeline.Offset) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range offsets {
		if m.fail == nil {
			delete(m.dead, o)
		}
	}
	return m.fail
}

func (m *memory) DeadOffsets(_ context.Context, _ string, from pipeline.Offset) (all []pipeline.Offset, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for o := range m.dead {
		if o >= from {
			all = append(all, o)
		}
	}
	slices.Sort(all)
	return all, m.fail
}

func (m *memory) PutSkip(_ context.Context, s Skip) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.skips = append(m.skips, s)
	return nil
}

func (m *memory) PutParks(_ context.Context, ps []Park) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.burying(); err != nil {
		return err
	}
	m.putParks(ps)
	return nil
}

func (m *memory) putParks(ps []Park) {
	m.buried += len(ps)
	for _, p := range ps {
		p.Copied = max(p.Copied, m.parks[p.ID()].Copied)
		m.parks[p.ID()] = p
	}
}

func (m *memory) Bury(_ context.Context, d pipeline.DeadLetter, p Park) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.burying(); err != nil {
		return err
	}
	m.putDeadLetters([]pipeline.DeadLetter{d})
	m.putParks([]Park{p})
	return nil
}

func (m *memory) DeleteParks(_ context.Context, ps []Park) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	for _, p := range ps {
		delete(m.parks, p.ID())
		maps.DeleteFunc(m.held, func(_ pipeline.Offset, h pipeline.Held) bool { return h.Park == p.ID() })
	}
	return nil
}

func (m *memory) PutHeld(_ context.Context, held []pipeline.Held, tables []pipeline.HeldTable) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.copying(); err != nil {
		return err
	}
	for _, t := range tables {
		m.tables[[2]uint32{t.ID, t.Version}] = t
	}
	for _, h := range held {
		if _, ok := m.parks[h.Park]; ok {
			m.held[h.Offset] = h
		}
	}
	return nil
}

func (m *memory) PutCopied(_ context.Context, ps []Park) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.copying(); err != nil {
		return err
	}
	for _, p := range ps {
		if k, ok := m.parks[p.ID()]; ok && k.From == p.From {
			k.Copied = max(k.Copied, p.Copied)
			m.parks[p.ID()] = k
		}
	}
	return nil
}

func (m *memory) Held(_ context.Context, _, _ string, from, to pipeline.Offset, limit int) ([]pipeline.Held, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []pipeline.Held
	for _, o := range slices.Sorted(maps.Keys(m.held)) {
		if o >= from && o < to && len(out) < limit {
			out = append(out, m.held[o])
		}
	}
	return out, m.fail
}

func (m *memory) HeldTable(_ context.Context, _ string, id, version uint32) (pipeline.HeldTable, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.tables[[2]uint32{id, version}]
	return t, ok, m.fail
}

func (m *memory) HeldBytes(context.Context, string) (n int64, events uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.held {
		n += int64(len(h.Block))
	}
	return n, uint64(len(m.held)), m.fail
}

func (m *memory) EachPark(ctx context.Context, s, log string, f func(*Park)) error {
	all, err := m.Parks(ctx, s)
	for i := range all {
		if all[i].Log == log && err == nil {
			f(&all[i])
		}
	}
	return err
}

func (m *memory) Parks(context.Context, string) ([]Park, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.parks)), m.fail
}

func (m *memory) Paused(_ context.Context, s string) (bool, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.paused[s]
	return ok, r, m.fail
}

func (m *memory) SetPaused(_ context.Context, s string, p bool, reason string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if delete(m.paused, s); p {
		m.paused[s] = reason
	}
	return m.fail
}

func (m *memory) cursor(s string) pipeline.Cursor {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursors[s]
}

func (m *memory) parked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.parks)
}

func (m *memory) setFail(err error) { m.mu.Lock(); m.fail = err; m.mu.Unlock() }

var table = pipetest.FilesTable("files")

// change is one event of a test: its key, or a table-wide event, or the half of a key change.
type change struct {
	key  uint64
	op   pipeline.Op
	pair bool
}

func batchOf(at time.Time, changes ...change) *pipeline.Batch {
	b := pipeline.NewBatch()
	b.Read = at
	b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("7"), Position: b.PutString("0/7"), Time: at.UnixMicro(), Ends: true})
	ti, _ := b.TableIndex(table)
	for _, c := range changes {
		e := pipeline.Event{Op: c.op, Table: ti, Hash: c.key, Before: pipeline.Nowhere, After: pipeline.Nowhere}
		if c.op == pipeline.OpNone {
			e.Op = pipeline.OpUpdate
		}
		e.Key = b.PutString(fmt.Sprintf("key-%d", c.key))
		if c.pair {
			e.Flags = pipeline.FlagKeyChange
		}
		b.Events = append(b.Events, e)
	}
	return b
}

func keys(ks ...uint64) []change {
	out := make([]change, len(ks))
	for i, k := range ks {
		out[i].key = k
	}
	return out
}

func appendTo(t testing.TB, l pipeline.Log, changes ...change) {
	t.Helper()
	if _, err := l.Append(context.Background(), batchOf(time.Now(), changes...)); err != nil {
		t.Fatal(err)
	}
}

// ordered marks a sink.
type ordered struct{ pipeline.Sink }

func (ordered) Ordered() {}

type run struct {
	*Subscription
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

// start runs a subscription until the test or stop ends it; inside synctest only.
func start(t *testing.T, c Config) *run {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if c.Rand() < 0.5 {
		s.passTail = 0
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{s, t, cancel, make(chan error, 1)}
	go func() { r.done <- s.Run(ctx); close(r.done) }()
	t.Cleanup(func() { // also when the test failed half-way
		cancel()
		for range r.done {
		}
	})
	synctest.Wait()
	return r
}

func (r *run) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil && !errors.Is(err, context.Canceled) {
		r.t.Fatal(err)
	}
}

func config(l pipeline.Log, m *memory, sink pipeline.Sink) Config {
	return Config{Name: "sub", Source: "files", Log: l, Cursors: m, Store: m, Jobs: m, Form: pipetest.PGForm, Sink: sink, Rand: dice(),
		Render: func(b *pipeline.Batch, i int, _ pipeline.Op) ([]byte, string) {
			return []byte(fmt.Sprintf(`{"offset":%d}`, b.Offset(i))), string(b.Bytes(b.Events[i].Key))
		}}
}

func dice() func() float64 {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2))
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Float64()
	}
}

func offsets(ds []pipetest.Delivered) []pipeline.Offset {
	var out []pipeline.Offset
	for _, d := range ds {
		out = append(out, d.Offset)
	}
	return out
}
