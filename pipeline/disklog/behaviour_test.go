package disklog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// poll waits until f holds.
func poll(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

func chunked(t testing.TB, l *Log, name string, chunks, events int, commit bool) (ticket uint64) {
	for c := range chunks {
		b := pipeline.NewBatch()
		fillBatch(b, testTable(uint32(c%2+1), 1), uint64(c), events, events, 100)
		b.Kind, b.Open, b.End = pipeline.BatchChunk, name, pipeline.Position{}
		b.Txs = b.Txs[:0]
		ticket = mustAppend(t, l, b)
	}
	b := pipeline.NewBatch()
	b.Kind, b.Open = pipeline.BatchAbort, name
	if commit {
		b.Kind = pipeline.BatchCommit
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("id-" + name), Position: b.PutString("pos-" + name), Time: 1_800_000_000_000_000})
		b.End = pipeline.Position{Counter: 99, Token: name}
		b.Notices = append(b.Notices, pipeline.Notice{Kind: pipeline.NoticeGap, Table: "public.t1", Reason: name})
	}
	return mustAppend(t, l, b)
}

// A transaction of chunks is invisible until its commit, then looks like any other: from memory, from the
// disk, and after the log was opened again.
func TestChunks(t *testing.T) {
	for _, memory := range []int64{1 << 20, 40 << 10, 24 << 10, 12 << 10, 9000, 1} {
		dir := t.TempDir()
		opt := Options{Dir: dir, SegmentSize: 16 << 10, Memory: memory}
		l := mustOpen(t, opt)
		from, _ := l.Bounds()
		waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 1, 5)))
		live, err := l.Read(from)
		if err != nil {
			t.Fatal(err)
		}
		b, err := live.Next(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
		waitSynced(t, l, chunked(t, l, "lost", 3, 20, false))
		waitSynced(t, l, chunked(t, l, "big", 12, 20, true))
		s := waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 2, 5)))
		if want := from + 5 + 240 + 5; s.Next != want {
			t.Fatalf("next %d, want %d", s.Next, want)
		}
		var got []string
		for at := from + 5; at < s.Next; {
			b, err := live.Next(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, content(b)...)
			at = b.Next()
			b.Release()
		}
		if n := len(got); n != 246 || !strings.Contains(got[0], `tx="id-big" pos="pos-big" 1800000000000000 seq=1 false`) ||
			!strings.Contains(got[239], "seq=240 true") || !strings.Contains(got[240], "big") {
			t.Fatalf("memory %d: %d events\n%s\n%s\n%s", memory, len(got), got[0], got[239], got[240])
		}
		if disk := readAll(t, l, from+5, s.Next); !slices.Equal(disk, got) {
			t.Fatal("a second reader sees something else")
		}
		if mid := readAll(t, l, from+5+100, s.Next); !slices.Equal(mid, got[100:]) {
			t.Fatalf("from the middle: %d events, first %s", len(mid), mid[0])
		}
		_ = live.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = mustOpen(t, opt)
		if disk := readAll(t, l, from+5, s.Next); !slices.Equal(disk, got) {
			t.Fatal("after opening again a reader sees something else")
		}
		if n := l.Notices(); len(n) != 1 || n[0].Reason != "big" {
			t.Fatalf("notices %v", n)
		}
		if damage, _, err := Verify(testContext(t), dir); err != nil || len(damage) > 0 {
			t.Fatal(damage, err)
		}
		_ = l.Close()
	}
}

// Readers at every speed see the same events while a writer appends and segments come and go.
func TestConcurrentReaders(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 32 << 10, Memory: 20 << 10, Queue: 16 << 10})
	from, _ := l.Bounds()
	const batches = 400
	next := from
	for i := range batches {
		next += pipeline.Offset(i%30 + 1)
	}
	var wg sync.WaitGroup
	for n := range 4 {
		r, err := l.Read(from)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer r.Close()
			var held []*pipeline.Batch
			for at := from; at < next; {
				b, err := r.Next(testContext(t))
				if err != nil {
					t.Error(err)
					break
				}
				if b.Base != at {
					t.Errorf("reader %d: base %d, want %d", n, b.Base, at)
				}
				at = b.Next()
				if held = append(held, b); len(held) > n*5 { // batches stay whole while they are held
					for _, h := range held {
						seed := h.End.Counter - 1
						if want := fmt.Sprintf("k%d", seed%97); string(h.Bytes(h.Events[0].Key)) != want {
							t.Errorf("key %q, want %q", h.Bytes(h.Events[0].Key), want)
						}
						h.Release()
					}
					held = held[:0]
				}
			}
			for _, h := range held {
				h.Release()
			}
		})
	}
	for i := range batches {
		mustAppend(t, l, rows(testTable(1, 1), uint64(i), i%30+1))
	}
	wg.Wait()
}

func TestRetention(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	dir := t.TempDir()
	opt := Options{Dir: dir, SegmentSize: 16 << 10, Memory: 1, Retention: Retention{Size: 100 << 10, Age: time.Hour}, Now: clock}
	l := mustOpen(t, opt)
	from, _ := l.Bounds()
	held, err := l.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, rows(testTable(9, 1), 0, 1)) // a table that is never seen again
	idle, err := l.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 1, 10)))
	b, err := held.Next(testContext(t)) // holds the first segment
	if err != nil {
		t.Fatal(err)
	}
	before := content(b)
	var s pipeline.Synced
	for i := range 400 {
		s = waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), uint64(i), 10)))
	}
	poll(t, "the oldest segments go by size", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.sizeFrom(0) <= 100<<10 && l.mu.segs[0].seq > 20
	})
	oldest, _ := l.Bounds()
	if !slices.Equal(content(b), before) {
		t.Fatal("what a reader held has changed")
	}
	b.Release()
	var gone *pipeline.TruncatedError
	if _, err := l.Read(from); !errors.As(err, &gone) || gone.Oldest != oldest {
		t.Fatalf("read of what is gone: %v", err)
	}
	if _, err := idle.Next(testContext(t)); !errors.As(err, &gone) {
		t.Fatalf("a reader that was overtaken: %v", err)
	}
	for {
		if b, err = held.Next(testContext(t)); err != nil {
			break
		}
		b.Release()
	}
	if !errors.As(err, &gone) {
		t.Fatalf("a reader whose next segment is gone: %v", err)
	}
	readAll(t, l, oldest, s.Next)

	// By age only what lies below the floor.
	mu.Lock()
	now = now.Add(3 * time.Hour)
	mu.Unlock()
	l.mu.Lock()
	middle := l.mu.segs[2].base()
	l.mu.Unlock()
	l.Floor(middle)
	poll(t, "old segments below the floor go", func() bool { o, _ := l.Bounds(); return o == middle })
	_ = held.Close()
	_ = idle.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	if len(files) > 8 {
		t.Fatalf("files are left: %v", files)
	}
	l = mustOpen(t, opt)
	if n := len(l.Tables()); n != 2 {
		t.Fatalf("%d tables, want 2: the one that is long gone is still described", n)
	}
	readAll(t, l, middle, s.Next)
	if damage, _, err := Verify(testContext(t), dir); err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
}

// A transaction larger than the quota goes as a whole, never in part, and nothing stands still for it.
func TestRetentionOfChunks(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 16 << 10, Memory: 1, Retention: Retention{Size: 50 << 10}})
	from, _ := l.Bounds()
	waitSynced(t, l, chunked(t, l, "big", 40, 30, true))
	s := waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 2, 5)))
	oldest, _ := l.Bounds()
	if oldest == from { // the commit's segment is the newest: all stays
		readAll(t, l, from, s.Next)
	}
	for i := range 60 {
		s = waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), uint64(i), 30)))
	}
	poll(t, "the transaction goes", func() bool { o, _ := l.Bounds(); return o >= from+1200 })
	oldest, _ = l.Bounds()
	readAll(t, l, oldest, s.Next)
}

func TestAt(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 16 << 10})
	from, _ := l.Bounds()
	times := []int64{10, 50, 30, 40, 50, 60, 20, 100}
	type mark struct {
		time int64
		at   pipeline.Offset
	}
	var marks []mark
	var ticket uint64
	for round := range 50 {
		for _, add := range times {
			b := rows(testTable(1, 1), 1, 3)
			b.Txs[0].Time = int64(round)*100 + add
			at := b.Txs[0].Time
			b.Retain()
			ticket = mustAppend(t, l, b)
			marks = append(marks, mark{at, b.Base})
			b.Release()
		}
	}
	s := waitSynced(t, l, ticket)
	for want := int64(-5); want < 5200; want += 41 {
		expect := s.Next
		for _, m := range marks {
			if m.time >= want {
				expect = m.at
				break
			}
		}
		got, err := l.At(testContext(t), time.UnixMicro(want))
		if err != nil || got != expect {
			t.Fatalf("at %d: %d, want %d (first %d), %v", want, got, expect, from, err)
		}
	}
}

func TestLockRestoreAndNewer(t *testing.T) {
	dir, next := filled(t, 10)
	l := mustOpen(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir, Source: "db"}); err == nil || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Fatalf("a second writer: %v", err)
	}
	if err := MarkRestored(dir, time.Now()); err == nil {
		t.Fatal("a log that is open was marked")
	}
	_ = l.Close()
	if _, err := Open(Options{Dir: dir, Source: "other"}); err == nil || !strings.Contains(err.Error(), `"db"`) {
		t.Fatalf("another source: %v", err)
	}
	later := time.Now().Add(time.Hour)
	for range 2 {
		if err := MarkRestored(dir, later); err != nil {
			t.Fatal(err)
		}
	}
	l = mustOpen(t, Options{Dir: dir})
	oldest, jumped := l.Bounds()
	if jumped != pipeline.FirstOffset(later) {
		t.Fatalf("next %d after a restore, want %d", jumped, pipeline.FirstOffset(later))
	}
	s := waitSynced(t, l, mustAppend(t, l, rows(testTable(1, 1), 1, 5)))
	if s.Next != jumped+5 {
		t.Fatalf("next %d", s.Next)
	}
	if got := readAll(t, l, oldest, s.Next); len(got) != 105 {
		t.Fatalf("%d events", len(got))
	}
	if got := readAll(t, l, next+7, s.Next); len(got) != 5 { // in the gap
		t.Fatalf("%d events", len(got))
	}
	if _, err := l.Read(s.Next + 1); !errors.Is(err, pipeline.ErrBeyondTail) {
		t.Fatal(err)
	}
	_ = l.Close()
	l = mustOpen(t, Options{Dir: dir})
	if _, n := l.Bounds(); n != s.Next {
		t.Fatalf("next %d, want %d: the gap is made once", n, s.Next)
	}
	_ = l.Close()
	if damage, _, err := Verify(testContext(t), dir); err != nil || len(damage) > 0 {
		t.Fatal(damage, err)
	}
	meta := filepath.Join(dir, metaName)
	p, _ := os.ReadFile(meta)
	if err := os.WriteFile(meta, []byte(strings.Replace(string(p), `"format": 1`, `"format": 2`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: dir, Source: "db"}); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Fatalf("a newer log: %v", err)
	}
}

func TestQueueBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := mustOpen(t, Options{Dir: t.TempDir(), Queue: 1})
		ctx := context.Background()
		for i := range 20 { // one batch always passes
			if _, err := l.Append(ctx, rows(testTable(1, 1), uint64(i), 100)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(ctx, rows(testTable(1, 1), 1, 1)); !errors.Is(err, pipeline.ErrClosed) {
			t.Fatal(err)
		}
		if _, err := l.Synced(ctx, 1000); !errors.Is(err, pipeline.ErrClosed) {
			t.Fatal(err)
		}
	})
}

// A blocked reader ends with its context, its Close, or the log's.
func TestReaderEnds(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir()})
	_, next := l.Bounds()
	ends := make(chan error, 2)
	for range 2 {
		r, err := l.Read(next)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		go func() { _, err := r.Next(context.Background()); ends <- err }()
		if len(ends) == 0 {
			defer r.Close()
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-ends; !errors.Is(err, pipeline.ErrClosed) {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal("closing twice:", err)
	}
}

func TestAllocationsPerEvent(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), Memory: 1, SegmentSize: 64 << 20})
	tab := testTable(1, 1)
	proto := pipeline.NewBatch()
	fillBatch(proto, tab, 1, 1000, 100, 50)
	ctx := context.Background()
	r, err := l.Read(func() pipeline.Offset { o, _ := l.Bounds(); return o }())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := testing.AllocsPerRun(30, func() {
		c := pipeline.NewBatch()
		c.Tables, c.Txs = append(c.Tables, proto.Tables...), append(c.Txs, proto.Txs...)
		c.Events, c.Arena = append(c.Events, proto.Events...), append(c.Arena, proto.Arena...)
		c.End = proto.End
		if _, err := l.Append(ctx, c); err != nil {
			t.Error(err)
		}
		b, err := r.Next(ctx)
		if err != nil {
			t.Error(err)
			return
		}
		b.Release()
	})
	if n > 50 { // per batch of 1,000 events: channels, group; nothing per event
		t.Fatalf("%v allocations per batch of 1,000 events", n)
	}
}
