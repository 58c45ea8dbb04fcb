package disklog

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// shapesName is the file of the table versions that no segment describes any more: one per line, as in a schema
// block. A line that does not parse was torn and is passed over.
const shapesName = "shapes"

// maxShapes bounds that file, in bytes: beyond it the versions that left the segments longest ago go, down to half. Who
// still has events of them has outlived the log by some thousand changes of shape.
const maxShapes = 16 << 20

// outlive keeps the table versions that only these segments describe, which are about to go: events that were
// delivered name them for ever. It reads and writes, so l.mu must not be held.
func (l *Log) outlive(gone []*segment) error {
	type place struct {
		seq uint64
		off int64
	}
	l.mu.Lock()
	stays := map[versionKey]bool{}
	for _, s := range l.mu.segs[min(len(gone), len(l.mu.segs)):] {
		if s.index == nil {
			continue
		}
		for k := range s.index.at {
			stays[k] = true
		}
	}
	places := map[versionKey]place{}
	for _, s := range gone {
		for k, off := range s.index.at {
			if !stays[k] {
				places[k] = place{s.seq, int64(off)}
			}
		}
	}
	l.mu.Unlock()
	if len(places) == 0 {
		return nil
	}
	kept, err := l.outlived()
	if err != nil {
		return err
	}
	for _, t := range kept {
		delete(places, versionKey{t.ID, t.Version})
	}
	var lines []byte
	var failed error
	for k, at := range places {
		t := l.tables.get(k.id, k.version)
		if t == nil {
			if t, err = l.describedAt(at.seq, at.off); err != nil || t == nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		if lines, err = record.AppendSchema(append(lines, '\n'), t); err != nil {
			return err
		}
	}
	if len(lines) == 0 {
		return failed
	}
	if err := l.appendShapes(append(lines, '\n')); err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, l.boundShapes(maxShapes))
}

// boundShapes leaves the newer half of the file when it is larger than most bytes. A crash leaves one or the other.
func (l *Log) boundShapes(most int64) (err error) {
	text, err := l.shapesText()
	if err != nil || int64(len(text)) <= most {
		return err
	}
	text = text[int64(len(text))-most/2:]
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		text = text[i:]
	}
	name := filepath.Join(l.opt.Dir, shapesName)
	f, err := l.opt.FS.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err == nil {
		err = errors.Join(f.WriteVec([][]byte{text}, 0), f.Sync(), f.Close())
	}
	if err == nil {
		err = l.opt.FS.Rename(name+".new", name)
	}
	if err == nil {
		err = l.opt.FS.SyncDir(l.opt.Dir)
	}
	if err != nil {
		return fmt.Errorf("bound the kept shapes: %w", err)
	}
	return nil
}

func (l *Log) appendShapes(lines []byte) (err error) {
	f, err := l.opt.FS.OpenFile(filepath.Join(l.opt.Dir, shapesName), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return fmt.Errorf("keep shapes: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	end, err := f.Size()
	if err == nil {
		err = f.WriteVec([][]byte{lines}, end)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("keep shapes: %w", err)
	}
	return l.opt.FS.SyncDir(l.opt.Dir)
}

// outlived reads the versions that were kept.
func (l *Log) outlived() (list []*schemas.Table, err error) {
	text, err := l.shapesText()
	for line := range bytes.Lines(text) {
		if t, err := record.DecodeSchema(line); err == nil {
			list = append(list, t)
		}
	}
	return list, err
}

// shapesText is the file's content, nil when there is none.
func (l *Log) shapesText() (text []byte, err error) {
	f, err := l.opt.FS.OpenFile(filepath.Join(l.opt.Dir, shapesName), os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the kept shapes: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("read the kept shapes: %w", err)
	}
	text = make([]byte, size)
	if err := readFull(f, text, 0); err != nil {
		return nil, fmt.Errorf("read the kept shapes: %w", err)
	}
	return text, nil
}
