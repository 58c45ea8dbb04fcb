package disklog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
)

// mixed writes batches of all kinds and sizes: rows, long transactions that lie between others, notices, bare
// positions, more than one version of tables.
func mixed(t testing.TB, l *Log, seed uint64, n int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	var ticket uint64
	for i := range n {
		at := uint64(i)
		switch r.IntN(12) {
		case 0:
			ticket = chunked(t, l, fmt.Sprintf("t%d-%d", seed, i), 1+r.IntN(6), 1+r.IntN(20), r.IntN(4) > 0)
		case 1:
			b := pipeline.NewBatch()
			b.End = pipeline.Position{Counter: at, Token: "bare"}
			if r.IntN(2) == 0 {
				b.Notices = append(b.Notices, pipeline.Notice{Kind: pipeline.NoticeGap, Table: "public.t1", Reason: fmt.Sprint(i)})
			}
			ticket = mustAppend(t, l, b)
		case 2:
			b := pipeline.NewBatch()
			fillBatch(b, testTable(1, uint32(i/100+1)), at, 4, 2, 10<<10) // aliases what it was read into
			ticket = mustAppend(t, l, b)
		default:
			ticket = mustAppend(t, l, rows(testTable(uint32(r.IntN(3)+1), uint32(i/100+1)), at, 1+r.IntN(30)))
		}
	}
	waitSynced(t, l, ticket)
}

// TestGroupSeesWhatOneSees: readers that begin anywhere, go at their own pace, hold what they got and go away see
// what a reader alone sees, whatever they share.
func TestGroupSeesWhatOneSees(t *testing.T) {
	for _, memory := range []int64{64 << 10, 32 << 20} {
		l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 256 << 10, Memory: memory})
		oldest, _ := l.Bounds()
		mixed(t, l, uint64(memory), 120)
		if memory > 1<<20 { // all of it is on the disk
			dir := l.opt.Dir
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, Options{Dir: dir, SegmentSize: 256 << 10, Memory: memory})
		}
		_, next := l.Bounds()
		want := map[pipeline.Offset][]string{}
		for at, r := oldest, mustRead(t, l, oldest); at < next; {
			b := mustNext(t, r)
			want[b.Base] = append(want[b.Base], content(b)...)
			at = b.Next()
			b.Release()
		}
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(n), uint64(memory)))
				for range 2 {
					from := oldest
					if n > 2 {
						from += pipeline.Offset(r.Uint64N(uint64(next - oldest)))
					}
					walk(t, l, r, from, next, want)
				}
			})
		}
		wg.Wait()
		if g := &l.group; g.size != 0 || len(g.kept) != 0 {
			t.Errorf("all have gone, and %d batches of %d bytes are kept", len(g.kept), g.size)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func walk(t *testing.T, l *Log, r *rand.Rand, from, next pipeline.Offset, want map[pipeline.Offset][]string) {
	lr, err := l.Read(from)
	if err != nil {
		t.Error(err)
		return
	}
	defer lr.Close()
	type held struct {
		b    *pipeline.Batch
		text []string
	}
	var hold []held
	got := map[pipeline.Offset][]string{}
	end := next
	if r.IntN(3) == 0 {
		end = from + pipeline.Offset(r.Uint64N(uint64(next-from)+1))
	}
	for at := from; at < end && !t.Failed(); {
		b, err := lr.Next(testContext(t))
		if err != nil {
			t.Errorf("at %d: %v", at, err)
			break
		}
		if b.Next() < at || len(b.Events) > 0 && b.Base > at {
			t.Errorf("at %d came a batch of %d to %d", at, b.Base, b.Next())
		}
		text := content(b)
		got[b.Base] = append(got[b.Base], text...)
		at = b.Next()
		if hold = append(hold, held{b, text}); len(hold) > r.IntN(20) {
			for _, h := range hold {
				if !slices.Equal(content(h.b), h.text) {
					t.Errorf("the batch at %d changed while it was held", h.b.Base)
				}
				h.b.Release()
			}
			hold = hold[:0]
		}
		if r.IntN(8) == 0 {
			runtime.Gosched()
		}
	}
	for _, h := range hold {
		h.b.Release()
	}
	for base, text := range got {
		if base >= from && base+1 < end && !slices.Equal(text, want[base]) {
			t.Errorf("at %d:\n got %s\nwant %s", base, text, want[base])
		}
	}
}

func mustRead(t testing.TB, l *Log, from pipeline.Offset) pipeline.LogReader {
	t.Helper()
	r, err := l.Read(from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func mustNext(t testing.TB, r pipeline.LogReader) *pipeline.Batch {
	t.Helper()
	b, err := r.Next(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGroupDecodesOnce: readers near one another get the same batches; what they share is bounded, and gone with
// the last but one of them. One who is far away reads for itself.
func TestGroupDecodesOnce(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 256 << 10, Memory: 1 << 20})
	oldest, _ := l.Bounds()
	for seed := range uint64(5) {
		mixed(t, l, seed, 150)
	}
	const n, steps = 16, 400
	var rs [n]pipeline.LogReader
	for i := range rs {
		rs[i] = mustRead(t, l, oldest)
	}
	far := mustRead(t, l, oldest)
	mustNext(t, far).Release()
	own := 0
	for step := range steps {
		var first *pipeline.Batch
		for i := range rs {
			r := rs[(i+step)%n] // another leads each time
			b := mustNext(t, r)
			switch {
			case first == nil:
				first = b
				continue
			case b != first:
				own++
			}
			b.Release()
		}
		first.Release()
		if g := &l.group; g.size > g.max {
			t.Fatalf("%d bytes are shared, the bound is %d", g.size, g.max)
		}
	}
	if own > n*4 { // where they begin they do not know of one another
		t.Errorf("%d of %d batches were decoded by who could have shared them", own, n*steps)
	}
	if far.(*reader).near != nil || rs[0].(*reader).near == nil {
		t.Error("who is far away shares, or who is near does not")
	}
	for _, r := range rs[1:] {
		_ = r.Close()
	}
	_ = far.Close()
	if g := &l.group; g.size != 0 || len(g.kept) != 0 {
		t.Errorf("one is left, and %d batches of %d bytes are kept", len(g.kept), g.size)
	}
}

// TestGroupBeginsAnywhere: readers that begin at different offsets of the same step of the index pass over different
// batches; what one decoded on its way is only for those who stand where it stood.
func TestGroupBeginsAnywhere(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Options{Dir: dir})
	oldest, _ := l.Bounds()
	mixed(t, l, 5, 100)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, Options{Dir: dir})
	_, next := l.Bounds()
	for range 2 { // somebody is near, also when those below are gone
		mustNext(t, mustRead(t, l, oldest)).Release()
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		low := oldest + pipeline.Offset(r.Uint64N(uint64(next-oldest)-400))
		high := low + pipeline.Offset(r.Uint64N(400))
		first, second := mustRead(t, l, high), mustRead(t, l, low)
		for _, x := range []struct {
			r    pipeline.LogReader
			from pipeline.Offset
		}{{first, high}, {second, low}} {
			b := mustNext(t, x.r)
			if b.Base > x.from || b.Next() < x.from {
				t.Fatalf("asked for %d (another for %d), got %d to %d", x.from, high, b.Base, b.Next())
			}
			b.Release()
			_ = x.r.Close()
		}
	}
}

// BenchmarkGroup: readers of the same segments, which hand over what they read, alone or sharing. cpu/one is the CPU
// time per event of the log and reader.
func BenchmarkGroup(b *testing.B) {
	for _, size := range []int{1000, 10} {
		for _, readers := range []int{1, 4, 16} {
			for _, kind := range []string{"alone", "shared"} {
				b.Run(fmt.Sprintf("%d/%d/%s", size, readers, kind), func(b *testing.B) { benchGroup(b, size, readers, kind == "shared") })
			}
		}
	}
}

func benchGroup(b *testing.B, size, readers int, shared bool) {
	dir := b.TempDir()
	l := mustOpen(b, Options{Dir: dir, Memory: 1})
	const events = 500_000
	oldest, _ := l.Bounds()
	var ticket uint64
	for i := range events / size {
		c := pipeline.NewBatch()
		fillBatch(c, testTable(1, 1), uint64(i), size, 100, 175)
		ticket = mustAppend(b, l, c)
	}
	waitSynced(b, l, ticket)
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	l = mustOpen(b, Options{Dir: dir})
	if !shared {
		l.group.max = 0
	}
	_, next := l.Bounds()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	rounds := max(1, b.N/events)
	for range rounds {
		var wg sync.WaitGroup
		for range readers {
			out := make(chan *pipeline.Batch, 64)
			wg.Go(func() {
				for c := range out {
					c.Release()
				}
			})
			wg.Go(func() {
				defer close(out)
				r := mustRead(b, l, oldest)
				defer r.Close()
				for at := oldest; at < next; {
					c, err := r.Next(context.Background())
					if err != nil {
						b.Error(err)
						return
					}
					at = c.Next()
					out <- c
				}
			})
		}
		wg.Wait()
	}
	cpu := float64(cpuTime(b)-before) / float64(rounds*events)
	b.ReportMetric(cpu, "cpu-ns/event")
	b.ReportMetric(cpu/float64(readers), "cpu-ns/one")
}

func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
