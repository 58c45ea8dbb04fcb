package simulation

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"
	"github.com/leat-cdc/leat/pipeline/disklog/faultfs"
)

// disk makes each operation that changes something a call: the log's writer and preparer work at the same time,
// and a crash may come before any of them.
type disk struct {
	*faultfs.FS
	w    *world
	life int
}

func (d *disk) ask(op, name string) error {
	x := &call{kind: callDisk, name: fmt.Sprintf("disk %s %s %s", worker(), op, name), life: d.life}
	if d.w.calls.ask(context.Background(), x) != nil {
		return faultfs.ErrCrashed
	}
	return nil
}

// worker names the goroutine of the log that calls: two of them may want the same.
func worker() string {
	var pcs [24]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		switch {
		case strings.HasSuffix(f.Function, ".(*writer).run"):
			return "writer"
		case strings.HasSuffix(f.Function, ".(*Log).prepareLoop"):
			return "preparer"
		case !more:
			return "opener"
		}
	}
}

// OpenFile implements diskfs.FS.
func (d *disk) OpenFile(name string, flag int) (diskfs.File, error) {
	if flag&(os.O_CREATE|os.O_TRUNC) != 0 {
		if err := d.ask("create", name); err != nil {
			return nil, err
		}
	}
	f, err := d.FS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return &file{f, d, name}, nil
}

// Rename implements diskfs.FS.
func (d *disk) Rename(old, new string) error {
	if err := d.ask("rename", old); err != nil {
		return err
	}
	return d.FS.Rename(old, new)
}

// Remove implements diskfs.FS.
func (d *disk) Remove(name string) error {
	if err := d.ask("remove", name); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

// SyncDir implements diskfs.FS.
func (d *disk) SyncDir(dir string) error {
	if err := d.ask("syncdir", dir); err != nil {
		return err
	}
	return d.FS.SyncDir(dir)
}

type file struct {
	diskfs.File
	d    *disk
	name string
}

// WriteVec implements diskfs.File.
func (f *file) WriteVec(pieces [][]byte, off int64) error {
	if err := f.d.ask("write", fmt.Sprintf("%s@%d", f.name, off)); err != nil {
		return err
	}
	return f.File.WriteVec(pieces, off)
}

// Sync implements diskfs.File.
func (f *file) Sync() error {
	if err := f.d.ask("sync", f.name); err != nil {
		return err
	}
	if f.d.w.plant.unsynced && worker() == "writer" {
		return nil
	}
	return f.File.Sync()
}

// Truncate implements diskfs.File.
func (f *file) Truncate(size int64) error {
	if err := f.d.ask("truncate", f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}
