package disklog_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
)

func batch(seed, n int) *pipeline.Batch {
	b := pipeline.NewBatch()
	ti, _ := b.TableIndex(table(1, 1))
	b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("x"), Position: b.PutString("p"), Time: int64(seed), Ends: true})
	for range n {
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Table: ti, Key: b.PutString("k"), Before: pipeline.Nowhere, After: b.Put(make([]byte, 100))})
	}
	b.End = pipeline.Position{Counter: uint64(seed), Token: "t"}
	return b
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A full disk confirms nothing, is told, and goes on when there is space.
func TestDiskFull(t *testing.T) {
	fsys := faultfs.New(1)
	full := make(chan bool, 100)
	opt := disklog.Options{Dir: "log", Source: "db", FS: fsys, SegmentSize: 16 << 10, Queue: 8 << 10,
		Observer: pipeline.Observer{LogFull: func(_ string, f bool) { full <- f }}}
	l, err := disklog.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	fsys.Space(20 << 10)
	seed := 0
	for blocked := false; !blocked; {
		seed++
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err := l.Append(short, batch(seed, 20))
		cancel()
		blocked = errors.Is(err, context.DeadlineExceeded)
		if err != nil && !blocked {
			t.Fatal(err)
		}
	}
	if !<-full {
		t.Fatal("the first report says that there is space")
	}
	// A position never waits for room.
	pos := pipeline.NewBatch()
	pos.End = pipeline.Position{Counter: 1 << 20, Token: "idle"}
	ticket, err := l.Append(ctx, pos)
	if err != nil {
		t.Fatal(err)
	}
	now, stop := context.WithCancel(ctx)
	stop()
	if s, err := l.Synced(now, ticket-1); err == nil {
		t.Fatalf("confirmed on a full disk: %+v", s)
	}
	fsys.Space(-1)
	s, err := l.Synced(ctx, ticket-1)
	if err != nil || s.End.Token != "idle" {
		t.Fatal(s, err)
	}
	for f := range full {
		if !f {
			break
		}
	}
	// Closed while full: gives up what was not confirmed, and says so.
	fsys.Space(0)
	for i := 0; ; i++ {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err := l.Append(short, batch(i, 20))
		cancel()
		if err != nil {
			break
		}
	}
	if err := l.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("close: %v", err)
	}
	fsys.Space(-1)
	if l, err = disklog.Open(opt); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// After a failed sync the log takes nothing more; opened again it has what was confirmed, also when the
// cache lies about the rest.
func TestFailedSync(t *testing.T) {
	for seed := range uint64(8) {
		fsys := faultfs.New(seed)
		opt := disklog.Options{Dir: "log", Source: "db", FS: fsys, SegmentSize: 4 << 20}
		l, err := disklog.Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx := deadline(t)
		ticket, err := l.Append(ctx, batch(1, 5))
		if err != nil {
			t.Fatal(err)
		}
		good, err := l.Synced(ctx, ticket-1)
		if err != nil {
			t.Fatal(err)
		}
		fsys.FailSyncs(1)
		if ticket, err = l.Append(ctx, batch(2, 5)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Synced(ctx, ticket-1); !errors.Is(err, faultfs.ErrSync) {
			t.Fatalf("synced: %v", err)
		}
		if _, err := l.Append(ctx, batch(3, 5)); !errors.Is(err, faultfs.ErrSync) {
			t.Fatalf("append: %v", err)
		}
		if err := l.Close(); !errors.Is(err, faultfs.ErrSync) {
			t.Fatalf("close: %v", err)
		}
		if l, err = disklog.Open(opt); err != nil { // the cache still shows the second batch
			t.Fatal(err)
		}
		_, next := l.Bounds()
		fsys.Crash() // and now it is gone, but for what opening has made durable
		_ = l.Close()
		fsys.Restart()
		if l, err = disklog.Open(opt); err != nil {
			t.Fatal(err)
		}
		if _, again := l.Bounds(); again != next || next < good.Next {
			t.Fatalf("next %d, then %d; confirmed %d", next, again, good.Next)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Bytes torn by an earlier crash never come back as new ones: the tail is cut once.
func TestTornTailStaysCut(t *testing.T) {
	for seed := range uint64(15) {
		fsys := faultfs.New(seed)
		opt := disklog.Options{Dir: "log", Source: "db", FS: fsys, SegmentSize: 16 << 10}
		for life := range 4 {
			l, err := disklog.Open(opt)
			if err != nil {
				t.Fatalf("seed %d, life %d: %v", seed, life, err)
			}
			ctx := deadline(t)
			ticket, err := l.Append(ctx, batch(life+1, 3))
			if err != nil {
				t.Fatal(err)
			}
			s, err := l.Synced(ctx, ticket-1)
			if err != nil {
				t.Fatal(err)
			}
			oldest, _ := l.Bounds()
			if n := int(s.Next - oldest); n%3 != 0 || n > 3*3*4+3 {
				t.Fatalf("seed %d: %d events", seed, n)
			}
			fsys.CrashAt(2) // the group's write happens, its sync does not
			for range 2 {
				if _, err := l.Append(ctx, batch(life+1, 3)); err != nil {
					break
				}
			}
			_ = l.Close()
			fsys.Restart()
		}
	}
}

// A block that survives a crash behind a torn one must not come back when what is written next ends
// exactly where it begins.
func TestStaleBlockBehindTornOne(t *testing.T) {
	one := func(size int) *pipeline.Batch {
		b := pipeline.NewBatch()
		ti, _ := b.TableIndex(table(1, 1))
		b.Txs = append(b.Txs, pipeline.Tx{ID: pipeline.Nowhere, Position: pipeline.Nowhere, Ends: true})
		b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpInsert, Table: ti, Key: pipeline.Nowhere, Before: pipeline.Nowhere, After: b.Put(make([]byte, size))})
		b.End = pipeline.Position{Counter: 1, Token: "t"}
		return b
	}
	const epochBlock = 88
	cut := 0
	for seed := range uint64(100) {
		fsys := faultfs.New(seed)
		opt := disklog.Options{Dir: "log", Source: "db", FS: fsys, SegmentSize: 4 << 20}
		l, err := disklog.Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		ctx := deadline(t)
		push := func(b *pipeline.Batch, wait bool) {
			t.Helper()
			ticket, err := l.Append(ctx, b)
			if err == nil && wait {
				_, err = l.Synced(ctx, ticket-1)
			}
			if err != nil && !fsys.Down() {
				t.Fatal(err)
			}
		}
		push(one(8), true)
		oldest, before := l.Bounds()
		fsys.CrashAt(1) // after the write of the group

		if err := disklog.AppendTogether(l, one(2000+epochBlock), one(8)); err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		fsys.Restart()
		if l, err = disklog.Open(opt); err != nil {
			t.Fatal(err)
		}
		if _, next := l.Bounds(); next == before {
			cut++
			push(one(2000), true)
			fsys.Crash()
			_ = l.Close()
			fsys.Restart()
			if l, err = disklog.Open(opt); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if _, next := l.Bounds(); next != before+1 {
				t.Fatalf("seed %d: events %d to %d, then one more: next is %d", seed, oldest, before, next)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if cut < 20 {
		t.Fatalf("only %d of the crashes tore the first block", cut)
	}
}

func TestLockedNames(t *testing.T) {
	fsys := faultfs.New(1)
	opt := disklog.Options{Dir: filepath.Join("a", "log"), Source: "db", FS: fsys}
	l, err := disklog.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := disklog.Open(opt); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatal(err)
	}
}
