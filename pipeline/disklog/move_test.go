package disklog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
)

// Transactions that idle or wait prepared while retention takes what lies around them, and the machine crashing
// anywhere meanwhile: what was reported durable is there once, in the end all of them can end, and nothing is damaged.
func TestMovedThroughCrashes(t *testing.T) {
	runs, moved := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		fsys := faultfs.New(rapid.Uint64().Draw(t, "seed"))
		m := &model{tables: map[uint32]uint32{}, patient: true}
		opt := options(fsys, t)
		opt.Retention.Size = 36 << 10
		for range rapid.IntRange(1, 2).Draw(t, "lives") {
			fsys.CrashAt(rapid.IntRange(20, 300).Draw(t, "crash"))
			m.idle = map[string][]line{}
			l, err := disklog.Open(opt)
			if err == nil && m.check(t, l, fsys) {
				m.appendSome(t, l, 45)
				if rapid.Bool().Draw(t, "hard") {
					fsys.Crash()
				}
			}
			if err == nil && l.Close() == nil {
				m.synced = len(m.units)
			}
			if err != nil && !fsys.Down() {
				t.Fatal(err)
			}
			fsys.Crash()
			fsys.Restart()
			fsys.CrashAt(-1)
		}
		m.idle, m.patient = map[string][]line{}, false
		l, err := disklog.Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		m.check(t, l, fsys)
		runs++
		if m.outlived(l) {
			moved++
		}
		for names := m.waiting(); len(names) > 0; names = m.waiting() {
			if m.end(names[0], names[0], m.lines[names[0]], nil, false, m.pusher(t, l)) {
				t.Fatal("the log failed")
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		m.synced = len(m.units)
		if l, err = disklog.Open(opt); err != nil {
			t.Fatal(err)
		}
		m.check(t, l, fsys)
		if h := l.Unended(); h.Open+h.Prepared > 0 {
			t.Fatalf("%+v where all have ended", h)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
	if !t.Failed() && 20*moved < runs { // a third does
		t.Errorf("in %d of %d histories retention took segments in which something had been prepared", moved, runs)
	}
}

// outlived reports whether one that is prepared has events that were written in segments which are gone.
func (m *model) outlived(l *disklog.Log) bool {
	oldest, _ := l.Bounds()
	for _, name := range m.waiting() {
		for _, u := range m.units {
			if u.prepares == name && len(m.lines[name]) > 0 && u.base < oldest {
				return true
			}
		}
	}
	return false
}

// appendSome appends up to n batches, waiting for most of them, until the log fails.
func (m *model) appendSome(t *rapid.T, l *disklog.Log, n int) {
	for range n {
		if !m.appendOne(t, l) {
			return
		}
		if rapid.IntRange(0, 3).Draw(t, "wait") > 0 && len(m.units) > 0 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			s, err := l.Synced(ctx, m.units[len(m.units)-1].ticket-1)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("synced hangs")
			}
			if err == nil {
				m.note(s)
			}
		}
	}
}

// writer appends to a log by hand.
type writer struct {
	t   *testing.T
	ctx context.Context
	l   *disklog.Log
	n   int
}

func (w *writer) put(b *pipeline.Batch) {
	w.t.Helper()
	kind := b.Kind
	ticket, err := w.l.Append(w.ctx, b)
	if err == nil && (kind != pipeline.BatchRows || w.n%8 == 0) {
		_, err = w.l.Synced(w.ctx, ticket-1)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// rows appends, now and then waiting for it, events of about a KiB each, as rows or as a chunk of open.
func (w *writer) rows(kind pipeline.BatchKind, open string, events int) {
	w.t.Helper()
	w.n++
	b := pipeline.NewBatch()
	i, _ := b.TableIndex(table(uint32(1+w.n%2), 1))
	b.Kind, b.Open = kind, open
	b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("x"), Position: b.PutString("p"), Time: int64(w.n), Ends: kind == pipeline.BatchRows})
	for range events {
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Table: i, Key: b.PutString("k"), Before: pipeline.Nowhere, After: b.PutString(fmt.Sprintf("%s %900d", open, w.n))})
	}
	if kind == pipeline.BatchRows {
		b.End = pipeline.Position{Counter: uint64(w.n), Token: fmt.Sprint(w.n)}
	}
	w.put(b)
}

func (w *writer) end(kind pipeline.BatchKind, open string) {
	w.t.Helper()
	w.n++
	b := pipeline.NewBatch()
	b.Kind, b.Open = kind, open
	if kind == pipeline.BatchCommit {
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString(open), Position: b.PutString("p"), Time: int64(w.n), Ends: true})
	}
	if kind != pipeline.BatchAbort {
		b.End = pipeline.Position{Counter: uint64(w.n), Token: fmt.Sprint(w.n)}
	}
	w.put(b)
}

// A small transaction that commits long after it began, prepared or not, does not take all between with it when it
// goes; what it holds is there until then.
func TestLateCommitGoesAlone(t *testing.T) {
	const segment, bound = 16 << 10, 128 << 10
	for _, prepared := range []bool{false, true} {
		t.Run(fmt.Sprint("prepared ", prepared), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, err := disklog.Open(disklog.Options{Dir: "log", Source: "db", FS: faultfs.New(1), SegmentSize: segment, Memory: 1, Retention: disklog.Retention{Size: bound}})
			if err != nil {
				t.Fatal(err)
			}
			w := &writer{t: t, ctx: ctx, l: l}
			w.rows(pipeline.BatchChunk, "late", 3)
			w.rows(pipeline.BatchChunk, "late", 3)
			if prepared {
				w.end(pipeline.BatchPrepared, "late")
			}
			for range 50 { // five segments
				w.rows(pipeline.BatchRows, "", 1)
			}
			w.end(pipeline.BatchCommit, "late")
			_, next := l.Bounds()
			r, err := l.Read(next - 6)
			if err != nil {
				t.Fatal(err)
			}
			for seen := 0; seen < 6; {
				b, err := r.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				seen += len(b.Events)
				b.Release()
			}
			for oldest, _ := l.Bounds(); oldest <= next; oldest, _ = l.Bounds() {
				w.rows(pipeline.BatchRows, "", 1)
				if now, _ := l.Bounds(); now > oldest+30 || ctx.Err() != nil {
					t.Fatalf("from %d to %d at once", oldest, now)
				}
			}
			if err := errors.Join(r.Close(), l.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A log of nothing but transactions that are larger than a segment shrinks beside one that idles.
func TestIdleBesideLargeTransactions(t *testing.T) {
	const segment, bound = 16 << 10, 160 << 10
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l, err := disklog.Open(disklog.Options{Dir: "log", Source: "db", FS: faultfs.New(1), SegmentSize: segment, Memory: 1, Retention: disklog.Retention{Size: bound}})
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, ctx: ctx, l: l}
	w.rows(pipeline.BatchChunk, "idle", 2)
	for i := range 40 {
		open := fmt.Sprint("large", i)
		for range 21 {
			w.rows(pipeline.BatchChunk, open, 1)
		}
		w.end(pipeline.BatchCommit, open)
		for l.Bytes() > bound+6*segment {
			if ctx.Err() != nil {
				t.Fatalf("the log takes %d bytes, %+v", l.Bytes(), l.Unended())
			}
			runtime.Gosched()
		}
	}
	w.end(pipeline.BatchCommit, "idle")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// A log with transactions that idle keeps to its bound, whatever is written beside them, and they are whole when
// they commit. Ones that hold more than half of the bound let it grow to twice of what they hold, no further. What
// commits can be read, though what is moved behind it fills the bound.
func TestIdleTransactionsLetTheLogShrink(t *testing.T) {
	const segment, bound = 16 << 10, 96 << 10
	for _, c := range []struct {
		name string
		rows int // of about a KiB, in each of two transactions
		most int64
	}{{"small", 3, bound + 3*segment}, {"over the bound", 60, 2*2*64<<10 + 4*segment}} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			dir := t.TempDir()
			l, err := disklog.Open(disklog.Options{Dir: dir, Source: "db", SegmentSize: segment, Memory: 1, Retention: disklog.Retention{Size: bound}})
			if err != nil {
				t.Fatal(err)
			}
			w := &writer{t: t, ctx: ctx, l: l}
			for range c.rows {
				w.rows(pipeline.BatchChunk, "a", 1)
				w.rows(pipeline.BatchChunk, "b", 1)
			}
			if h := l.Unended(); h.Over() != (c.rows > 3) || h.Open < int64(2*c.rows)<<9 || h.Prepared != 0 {
				t.Errorf("%+v", h)
			}
			for range 350 {
				w.rows(pipeline.BatchRows, "", 1)
				for l.Bytes() > c.most {
					if ctx.Err() != nil {
						t.Fatalf("the log takes %d bytes, %+v", l.Bytes(), l.Unended())
					}
					runtime.Gosched()
				}
			}
			settled := func() {
				for !disklog.Settled(l) {
					if ctx.Err() != nil {
						t.Fatalf("retention goes on and on: %d bytes, %+v", l.Bytes(), l.Unended())
					}
					runtime.Gosched()
				}
			}
			w.end(pipeline.BatchCommit, "a")
			_, next := l.Bounds()
			at := next - pipeline.Offset(c.rows)
			settled()
			w.end(pipeline.BatchAbort, "b")
			settled()
			r, err := l.Read(at)
			if err != nil {
				t.Fatal(err)
			}
			for seen := 0; seen < c.rows; {
				b, err := r.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for i := range b.Events {
					if text := string(b.Bytes(b.Events[i].After)); !strings.HasPrefix(text, "a ") || b.Offset(i) != at+pipeline.Offset(seen) {
						t.Fatalf("at %d an event of %.20q", b.Offset(i), text)
					}
					seen++
				}
				b.Release()
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if damage, sum, err := disklog.Verify(ctx, dir); err != nil || len(damage) > 0 || sum.Next != next {
				t.Fatal(damage, sum.Next, err)
			}
		})
	}
}

// unopened is a file system that opens nothing for reading while it is told so, and counts how often it did not.
type unopened struct {
	*faultfs.FS
	out   atomic.Bool
	times atomic.Int32
}

func (u *unopened) OpenFile(name string, flag int) (diskfs.File, error) {
	if flag == os.O_RDONLY && u.out.Load() {
		u.times.Add(1)
		return nil, syscall.EMFILE
	}
	return u.FS.OpenFile(name, flag)
}

// A chunk that cannot be read for now is moved at a later turn.
func TestMovedAtALaterTurn(t *testing.T) {
	const segment, bound = 16 << 10, 96 << 10
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fsys := &unopened{FS: faultfs.New(1)}
	l, err := disklog.Open(disklog.Options{Dir: "log", Source: "db", FS: fsys, SegmentSize: segment, Memory: 1, Retention: disklog.Retention{Size: bound}})
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{t: t, ctx: ctx, l: l}
	w.rows(pipeline.BatchChunk, "idle", 3)
	fsys.out.Store(true)
	for fsys.times.Load() < 2 || l.Bytes() < bound+6*segment {
		w.rows(pipeline.BatchRows, "", 1)
	}
	fsys.out.Store(false)
	for l.Bytes() > bound+3*segment {
		w.rows(pipeline.BatchRows, "", 1)
	}
	w.end(pipeline.BatchCommit, "idle")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
