package disklog

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// grow appends until the log was written to n more bytes.
func grow(t *testing.T, l *Log, seed *uint64, n int64) {
	t.Helper()
	for end := l.Depth(0).Written + n; l.Depth(0).Written < end; *seed++ {
		b := pipeline.NewBatch()
		fillBatch(b, testTable(1, 1), *seed, 4, 4, 500)
		ticket := mustAppend(t, l, b)
		if _, err := l.Synced(testContext(t), ticket-1); err != nil {
			t.Fatal(err)
		}
	}
}

// gone waits until the log begins at or above o.
func gone(t *testing.T, l *Log, o pipeline.Offset) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		if oldest, _ := l.Bounds(); oldest >= o {
			return
		}
		if time.Now().After(end) {
			oldest, _ := l.Bounds()
			t.Fatalf("the log begins at %d, want %d", oldest, o)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestRetentionWaitsForTheGuard: what somebody has to copy stays until it is, or half a minute.
func TestRetentionWaitsForTheGuard(t *testing.T) {
	var late atomic.Int64
	now := time.Unix(1_800_000_000, 0)
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 32 << 10, Memory: 1, Retention: Retention{Size: 100 << 10},
		Now: func() time.Time { return now.Add(time.Duration(late.Load())) }})
	first, _ := l.Bounds()
	seed := uint64(1)
	l.Guard(0)
	grow(t, l, &seed, 300<<10)
	doomed := l.Doomed()
	if oldest, _ := l.Bounds(); oldest != first || doomed <= first {
		t.Fatalf("the log begins at %d, %d is doomed", oldest, doomed)
	}
	l.Guard(doomed)
	gone(t, l, doomed)
	if d := l.Depth(first); !d.Gone || d.Headroom != 0 {
		t.Fatalf("%+v", d)
	}
	grow(t, l, &seed, 100<<10)
	if oldest, _ := l.Bounds(); oldest != doomed {
		t.Fatalf("it did not wait: %d", oldest)
	}
	late.Store(int64(guardTime))
	grow(t, l, &seed, 40<<10)
	gone(t, l, doomed+1)
}

// TestDepth: headroom shrinks as the log grows, to nothing just before the offset goes; a squeezed log grows no more; a
// changed bound counts at once.
func TestDepth(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 32 << 10, Memory: 1, Retention: Retention{Size: 400 << 10, Age: time.Hour}})
	first, _ := l.Bounds()
	seed, before := uint64(1), int64(1<<40)
	for {
		d := l.Depth(first)
		if d.Gone {
			break
		}
		if d.Headroom > before || d.Behind > d.Written {
			t.Fatalf("%+v after %d", d, before)
		}
		before = d.Headroom
		grow(t, l, &seed, 8<<10)
		if oldest, _ := l.Bounds(); oldest > first && before > 48<<10 {
			t.Fatalf("gone with %d bytes of headroom", before)
		}
	}
	oldest, next := l.Bounds()
	if d := l.Depth(next); d.Behind != 0 || !d.Memory {
		t.Fatalf("%+v", d)
	}
	l.SetRetention(Retention{Size: 10 << 20})
	if d := l.Depth(oldest); d.Headroom < 9<<20 || d.ToAge != pipeline.Unknown {
		t.Fatalf("%+v", d)
	}
	l.Squeeze(true)
	bound := l.Bytes()
	grow(t, l, &seed, 100<<10)
	gone(t, l, oldest+1)
	if n := l.Bytes(); n > bound+64<<10 {
		t.Fatalf("squeezed to %d, it has %d", bound, n)
	}
	l.Squeeze(false)
	oldest, _ = l.Bounds()
	grow(t, l, &seed, 100<<10)
	if at, _ := l.Bounds(); at != oldest {
		t.Fatal("still squeezed")
	}
}

// A log of nothing but transactions of about a segment, each over a border of two: retention keeps the log to its size
// all the same, for now and then a segment begins between two of them.
func TestRetentionOfLargeTransactionsInARow(t *testing.T) {
	const segment, quota = 16 << 10, 128 << 10
	dir := t.TempDir()
	l := mustOpen(t, Options{Dir: dir, SegmentSize: segment, Memory: 1, Retention: Retention{Size: quota}})
	var s pipeline.Synced
	for i := range 100 {
		s = waitSynced(t, l, chunked(t, l, fmt.Sprint("large ", i), 45, 3, true))
	}
	poll(t, "the log keeps to its size", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.sizeFrom(0) <= quota+4*segment
	})
	oldest, _ := l.Bounds()
	readAll(t, l, oldest, s.Next)
	if damage, _, err := Verify(testContext(t), dir); err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
}
