package app

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"
)

// smallDisk is the system's file system with no space while full.
type smallDisk struct {
	diskfs.OS
	full *atomic.Bool
}

type smallFile struct {
	diskfs.File
	full *atomic.Bool
}

func (d smallDisk) OpenFile(name string, flag int) (diskfs.File, error) {
	if d.full.Load() && flag&os.O_CREATE != 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	f, err := d.OS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return smallFile{f, d.full}, nil
}

func (f smallFile) WriteVec(pieces [][]byte, off int64) error {
	if f.full.Load() {
		return syscall.ENOSPC
	}
	return f.File.WriteVec(pieces, off)
}

// onceFull has no space until somebody has asked for some.
type onceFull struct {
	diskfs.OS
	asked atomic.Bool
}

func (d *onceFull) OpenFile(name string, flag int) (diskfs.File, error) {
	if flag&os.O_CREATE != 0 && !d.asked.Swap(true) {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	return d.OS.OpenFile(name, flag)
}

// A start on a full disk says so and waits for space.
func TestAStartWaitsForSpace(t *testing.T) {
	t.Parallel()
	in := install(t, t.TempDir(), top+"sources: {leat: {status: {}}}\n", func(o *Options) { o.FS = &onceFull{} })
	in.streaming(t, "leat")
	if lines := in.log.String(); strings.Count(lines, "cannot begin, as the disk is full") != 1 || !strings.Contains(lines, "free space in") {
		t.Error(lines)
	}
}

// While the log's disk is full the source is not confirmed, status says so, and nothing is lost: neither
// when there is space again nor when Leat is stopped meanwhile.
func TestLogFull(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	yaml := db.yaml("a: {source: files, deliver: {" + toHook(h) + "}}")
	full := &atomic.Bool{}
	small := func(o *Options) { o.FS = smallDisk{full: full} }
	in := install(t, dir, yaml, small)
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1)")
	h.waits(t, 1)
	confirmed := func(lsn string) bool {
		return db.ask(t, "SELECT (confirmed_flush_lsn >= '"+lsn+"')::text FROM pg_replication_slots WHERE slot_name = '"+db.slot()+"_files'") == "true"
	}
	for i, again := range []func(){
		func() { full.Store(false) },
		func() {
			if err := in.stop(); !errors.Is(err, syscall.ENOSPC) { // said, though nothing is lost
				t.Fatal(err)
			}
			in.ended = true
			full.Store(false)
			in = install(t, dir, yaml, small)
		},
	} {
		full.Store(true)
		db.exec(t, "INSERT INTO files SELECT "+plainOffset(uint64(i+1))+"*100000 + i FROM generate_series(1,5000) i")
		lsn := db.ask(t, "SELECT pg_current_wal_lsn()::text")
		until(t, "status to say that the log is full", func() bool { return in.source(t, "files").LogFull })
		if confirmed(lsn) || len(h.got(t)) != 1+i*5000 {
			t.Error("confirmed or delivered what is not durable")
		}
		again()
		got := ids(h.waits(t, 1+(i+1)*5000))
		if n := len(slices.Compact(slices.Sorted(slices.Values(got)))); n != 1+(i+1)*5000 {
			t.Errorf("%d events, %d different", len(got), n)
		}
		until(t, "status to say that there is space", func() bool { return !in.source(t, "files").LogFull })
		db.exec(t, "INSERT INTO files VALUES ("+plainOffset(uint64(9000000+i))+")", "DELETE FROM files WHERE id >= 9000000")
		until(t, "the slot to advance", func() bool { return confirmed(lsn) })
		h.waits(t, 1+(i+1)*5000+2) // the row and its deletion
		h.mu.Lock()
		h.events = h.events[:1+(i+1)*5000]
		h.mu.Unlock()
	}
}
