package disklog

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
)

// TestAHeldBatchHoldsItsOwnMemoryOnly: a subscription that waits for one small batch in a thousand (a filter
// that lets few pass, keys that are tried again) must not hold what was read around them, which its budget
// does not count.
func TestAHeldBatchHoldsItsOwnMemoryOnly(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), Memory: 1})
	defer l.Close()
	ctx := testContext(t)
	const n, every = 16_000, 2_000
	from, _ := l.Bounds()
	var ticket uint64
	for i := range n {
		b := pipeline.NewBatch()
		fillBatch(b, testTable(1, 1), uint64(i), 1, 1, 400)
		ticket = mustAppend(t, l, b)
	}
	if _, err := l.Synced(ctx, ticket-1); err != nil {
		t.Fatal(err)
	}
	r, err := l.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	var held []*pipeline.Batch
	before := inUse()
	for i := range n {
		b, err := r.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i%every == 0 {
			held = append(held, b)
		} else {
			b.Release()
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	counted := 0
	for _, b := range held {
		counted += b.Size()
	}
	if grown := inUse() - before; grown > 2<<20 {
		t.Errorf("%d batches that count %d bytes hold %d", len(held), counted, grown)
	}
	for i, b := range held {
		if got := string(b.Bytes(b.Txs[0].ID)); got != fmt.Sprintf("tx%d-0", i*every) {
			t.Fatalf("batch %d is %q", i, got)
		}
		b.Release()
	}
}

// inUse is what is reachable: pools are emptied by two collections.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
