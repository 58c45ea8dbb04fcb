package deliver

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// null acknowledges everything, and says when there was enough of it.
type null struct {
	left   atomic.Int64
	enough chan struct{}
}

func (n *null) Deliver(_ context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	if n.left.Add(-int64(d.Events)) == 0 {
		close(n.enough)
	}
	return nil, nil
}

func (*null) Close() error { return nil }

// endless is a log that holds the same batch over and over, at rising offsets.
type endless struct {
	*pipetest.MemoryLog
	total pipeline.Offset
}

func (e *endless) Bounds() (pipeline.Offset, pipeline.Offset) { return first, first + e.total }

func (e *endless) Read(from pipeline.Offset) (pipeline.LogReader, error) {
	return &endlessReader{e: e, at: from, free: make(chan *pipeline.Batch, 256)}, nil
}

type endlessReader struct {
	e    *endless
	at   pipeline.Offset
	free chan *pipeline.Batch
}

var benchBatch = sync.OnceValue(func() *pipeline.Batch {
	changes := make([]change, 1000)
	for i := range changes {
		changes[i].key = uint64(i) * 0x9e3779b97f4a7c15
	}
	return batchOf(time.Unix(1, 0), changes...)
})

func (r *endlessReader) Next(ctx context.Context) (*pipeline.Batch, error) {
	if r.at >= first+r.e.total {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var b *pipeline.Batch
	select {
	case b = <-r.free:
		b.Retain()
	default:
		src := benchBatch()
		b = pipeline.NewBatchOver(func(b *pipeline.Batch) { r.free <- b })
		b.Tables, b.Txs, b.Events, b.Arena = src.Tables, src.Txs, src.Events, src.Arena
	}
	b.Base = r.at
	r.at = b.Next()
	return b, nil
}

func (r *endlessReader) Close() error { return nil }

// deliverAll runs a subscription until n events are delivered.
func deliverAll(t testing.TB, n int, inOrder bool, parked ...Park) {
	sink := &null{enough: make(chan struct{})}
	sink.left.Store(int64(n))
	m := newMemory()
	_ = m.PutParks(context.Background(), parked) // of other keys
	c := config(&endless{pipetest.NewMemoryLog("log", first), pipeline.Offset(n)}, m, sink)
	if inOrder {
		c.Sink = ordered{sink}
	}
	c.Batch.Events, c.MaxInFlight = 500, 16
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-sink.enough
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func benchmark(b *testing.B, inOrder bool) {
	const n = 2_000_000
	b.ReportAllocs()
	for b.Loop() {
		deliverAll(b, n, inOrder)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/event")
}

func BenchmarkOrderedSink(b *testing.B) { benchmark(b, true) }
func BenchmarkSlots(b *testing.B)       { benchmark(b, false) }

// manyParks are n parked keys as they come out of the state.
func manyParks(n int) []Park {
	all := make([]Park, n)
	for i := range all {
		all[i] = Park{Subscription: strings.Clone("sub"), Log: strings.Clone("log"), Space: strings.Clone("public.files"), Key: []byte(fmt.Sprintf("\x01%08d", i)), KeyJSON: fmt.Sprintf(`{"id":%d}`, i),
			Hash: uint64(i)*0x9e3779b97f4a7c15 + 1, From: first, Reason: fmt.Sprintf("given up after 12 attempts in 27m13s: 500 Internal Server Error of %d", i), Attempts: 12, Since: time.Unix(1, 0)}
	}
	return all
}

// BenchmarkHealthyBesideParks: what 10,000 parked keys cost those that are not parked.
func BenchmarkHealthyBesideParks(b *testing.B) {
	const n = 2_000_000
	parked := manyParks(maxParks)
	for b.Loop() {
		deliverAll(b, n, false, parked...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/event")
}

// TestAParkTakesLittleMemory: half a million in all must fit.
func TestAParkTakesLittleMemory(t *testing.T) {
	m := newMemory()
	s, err := New(config(pipetest.NewMemoryLog("log", first), m, &null{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.PutParks(t.Context(), manyParks(maxParks)); err != nil {
		t.Fatal(err)
	}
	s.cfg.Store = fresh{m}
	before := heapInUse()
	if err := s.loadParks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if per := (heapInUse() - before) / maxParks; per > 200 {
		t.Errorf("%d bytes for each park", per)
	} else {
		t.Logf("%d bytes for each park", per)
	}
	runtime.KeepAlive(s)
}

// fresh returns parks that share no memory with what is stored, as a database does.
type fresh struct{ *memory }

func (f fresh) EachPark(_ context.Context, _, _ string, each func(*Park)) error {
	for _, p := range manyParks(maxParks) {
		each(&p)
	}
	return nil
}

func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestNoAllocationPerEvent: what is allocated grows with Deliveries (and the first buffers), not events.
func TestNoAllocationPerEvent(t *testing.T) {
	for _, inOrder := range []bool{true, false} {
		const n = 200_000
		deliverAll(t, n, inOrder) // fills the pools
		few := testing.AllocsPerRun(1, func() { deliverAll(t, n, inOrder) })
		many := testing.AllocsPerRun(1, func() { deliverAll(t, 3*n, inOrder) })
		if per := (many - few) / (2 * n); per > 0.05 {
			t.Errorf("ordered %v: %.3f allocations per event", inOrder, per)
		}
	}
}
