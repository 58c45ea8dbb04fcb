package disklog

import (
	"testing"

	"github.com/leat-cdc/leat/pipeline"
)

// TestBehindInLargeTransaction: what is left of a transaction weighs its share of the chunks' bytes,
// wherever they lie: in the commit's segment or before it, with rows of others between, and after the log was
// opened again.
func TestBehindInLargeTransaction(t *testing.T) {
	for _, c := range []struct {
		name    string
		segment int64
		between bool
	}{{"one segment", 16 << 20, false}, {"many segments", 300 << 10, false}, {"rows of others between", 16 << 20, true}} {
		t.Run(c.name, func(t *testing.T) {
			opt := Options{Dir: t.TempDir(), SegmentSize: c.segment}
			l := mustOpen(t, opt)
			seed := uint64(0)
			other := func() { seed++; mustAppend(t, l, rows(testTable(1, 1), seed, 5)) }
			other()
			written := l.Depth(0).Written
			const chunks, each = 60, 100
			for i := range chunks {
				b := pipeline.NewBatch()
				fillBatch(b, testTable(2, 1), uint64(i), each, each, 200)
				b.Kind, b.Open, b.End = pipeline.BatchChunk, "big", pipeline.Position{}
				b.Txs = b.Txs[:0]
				ticket := mustAppend(t, l, b)
				if c.between {
					other()
				}
				waitSynced(t, l, ticket)
			}
			_, base := l.Bounds()
			commit := pipeline.NewBatch()
			commit.Kind, commit.Open, commit.End = pipeline.BatchCommit, "big", pipeline.Position{Counter: 99, Token: "big"}
			commit.Txs = append(commit.Txs, pipeline.Tx{ID: commit.PutString("id"), Position: commit.PutString("p"), Time: 1})
			end := waitSynced(t, l, mustAppend(t, l, commit)).Next
			if end < base+chunks*each {
				t.Fatalf("the transaction has %d events", end-base)
			}
			base = end - chunks*each
			whole := l.Depth(0).Written - written
			look := func(slack float64) {
				t.Helper()
				for _, left := range []pipeline.Offset{chunks * each, chunks * each * 7 / 10, chunks * each / 2, 100, 1} {
					events, got := l.Behind(end - left)
					want := float64(whole) * float64(left) / (chunks * each)
					if events != uint64(left) || float64(got) < want*(1-slack)-64 || float64(got) > want*(1+slack)+64 {
						t.Errorf("%d events left: %d events, %d bytes, want about %.0f of %d", left, events, got, want, whole)
					}
					if d := l.Depth(end - left); d.Behind != got {
						t.Errorf("Depth says %d, Behind %d", d.Behind, got)
					}
				}
				if e, b := l.Behind(end); e != 0 || b != 0 {
					t.Errorf("at the end: %d events, %d bytes", e, b)
				}
			}
			look(0.1)
			if c.between { // only an estimate knows of them after the log was opened again
				return
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, opt)
			look(0.2)
			// Of a segment that is sealed only the index is read.
			for newest := pipeline.Offset(0); newest < end; {
				seed++
				b := pipeline.NewBatch()
				fillBatch(b, testTable(1, 1), seed, 500, 500, 2000)
				waitSynced(t, l, mustAppend(t, l, b))
				l.mu.Lock()
				newest = l.mu.segs[len(l.mu.segs)-1].base()
				l.mu.Unlock()
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, opt)
			_, all := l.Behind(base)
			_, half := l.Behind(base + chunks*each/2)
			_, none := l.Behind(end)
			if tx := float64(all - none); tx < float64(whole)*0.8 || float64(half-none) < 0.4*tx || float64(half-none) > 0.6*tx {
				t.Errorf("sealed: %d, %d, %d bytes; the transaction has %d", all, half, none, whole)
			}
		})
	}
}
