package disklog_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
)

// TestOpenOnFullDisk: a process that ended while the disk was full comes up again with little space, to
// deliver and to remove what is old; with none it says what it needs.
func TestOpenOnFullDisk(t *testing.T) {
	fsys := faultfs.New(1)
	opt := disklog.Options{Dir: "log", Source: "db", FS: fsys, SegmentSize: 16 << 20, Queue: 64 << 10}
	l, err := disklog.Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	fsys.Space(0)
	ctx := deadline(t)
	for seed := 1; ; seed++ {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err := l.Append(short, batch(seed, 100))
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("close: %v", err)
	}
	if _, err = disklog.Open(opt); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
		t.Fatalf("without any space: %v", err)
	}
	fsys.Space(600 << 10)
	if l, err = disklog.Open(opt); err != nil {
		t.Fatalf("with a little space: %v", err)
	}
	ticket, err := l.Append(ctx, batch(1<<20, 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Synced(ctx, ticket-1); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) { // the next segment was not written ahead
		t.Fatal(err)
	}
}

// TestCommittedSince is known without reading, and never later than the truth.
func TestCommittedSince(t *testing.T) {
	fsys := faultfs.New(1)
	l, err := disklog.Open(disklog.Options{Dir: "log", Source: "db", FS: fsys, SegmentSize: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	ctx := deadline(t)
	var ticket uint64
	for seed := 1; seed <= 40; seed++ {
		if ticket, err = l.Append(ctx, batch(seed, 20)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Synced(ctx, ticket-1); err != nil {
		t.Fatal(err)
	}
	from, next := l.Bounds()
	later := time.Time{}
	for o := from; o < next; o++ {
		at, err := l.CommittedAt(ctx, o)
		since := l.CommittedSince(o)
		if err != nil || since.IsZero() || since.After(at) || since.Before(later) {
			t.Fatalf("offset %d: committed %v, since %v, %v", o, at, since, err)
		}
		later = since
	}
	if !later.After(l.CommittedSince(from)) || !l.CommittedSince(next).IsZero() {
		t.Errorf("from %v to %v, then %v", l.CommittedSince(from), later, l.CommittedSince(next))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
