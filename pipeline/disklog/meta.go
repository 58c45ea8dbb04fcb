package disklog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/google/uuid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

const (
	metaName = "meta"
	lockName = "lock"
	// formatVersion of the folder: of meta, the segment header and the names of files. Blocks have their own.
	formatVersion = 1
)

// meta is the file that says what a log's folder is.
type meta struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`
	Source  string    `json:"source"`
	Created time.Time `json:"created"`
	// First is the first offset ever.
	First pipeline.Offset `json:"first,string"`
	// AtLeast: the next offset must not be below; set when the folder was restored.
	AtLeast pipeline.Offset `json:"at_least,string,omitempty"`
	// Gaps are offsets that were left out because of that: no event has them.
	Gaps []gap `json:"gaps,omitempty"`
}

// gap is [From, To).
type gap struct {
	From pipeline.Offset `json:"from,string"`
	To   pipeline.Offset `json:"to,string"`
}

// noteGap remembers the gap that opening the log leaves before AtLeast.
func (l *Log) noteGap(next pipeline.Offset) error {
	g := gap{From: next, To: l.meta.AtLeast}
	if g.From >= g.To || slices.Contains(l.meta.Gaps, g) {
		return nil
	}
	l.meta.Gaps = append(l.meta.Gaps, g)
	return writeMeta(l.opt.FS, l.opt.Dir, l.meta)
}

func newMeta(source string, now time.Time) meta {
	return meta{Format: formatVersion, ID: uuid.NewString(), Source: source, Created: now.UTC().Truncate(time.Second), First: pipeline.FirstOffset(now)}
}

// readMeta reads the meta file; fs.ErrNotExist when there is none.
func readMeta(fsys diskfs.FS, dir string) (meta, error) {
	name := filepath.Join(dir, metaName)
	var m meta
	b, err := readFile(fsys, name)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%s is damaged: %w; restore it from a backup of the folder", name, err)
	}
	if m.Format > formatVersion {
		return m, fmt.Errorf("log in %s: %w", dir, &record.NewerError{Version: uint16(m.Format)})
	}
	if m.Format < 1 || m.ID == "" {
		return m, fmt.Errorf("%s is damaged: no format or id; restore it from a backup of the folder", name)
	}
	return m, nil
}

func readFile(fsys diskfs.FS, name string) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	b := make([]byte, max(size, 0))
	if err == nil {
		err = readFull(f, b, 0)
	}
	return b, errors.Join(err, f.Close())
}

// writeMeta replaces the file as a whole: after a crash it is the old or the new one.
func writeMeta(fsys diskfs.FS, dir string, m meta) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode meta: %w", err)
	}
	name := filepath.Join(dir, metaName)
	f, err := fsys.OpenFile(name+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("create meta: %w", err)
	}
	if err = f.WriteVec([][]byte{append(b, '\n')}, 0); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write meta: %w", err)
	}
	if err := fsys.Rename(name+".new", name); err != nil {
		return fmt.Errorf("put meta in place: %w", err)
	}
	return syncDir(fsys, dir)
}

func syncDir(fsys diskfs.FS, dir string) error {
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// MarkRestored tells the log in dir that its folder comes from a backup, so that events which were logged
// after the backup have had offsets that the folder does not know: the next offset will be at least the
// current Unix second × 2²⁰, as that of a new log. Nothing else changes; the offsets have one gap there.
// Idempotent; refused while a process has the log open.
func MarkRestored(dir string, now time.Time) (err error) {
	var fsys diskfs.FS = diskfs.OS{}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return fmt.Errorf("log in %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	m, err := readMeta(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds no log", dir)
	}
	if err != nil {
		return err
	}
	info, err := Info(dir)
	if err != nil {
		return err
	}
	if m.AtLeast > 0 && info.Next == m.AtLeast { // marked before, and not opened since
		m.AtLeast = max(m.AtLeast, pipeline.FirstOffset(now))
	} else {
		m.AtLeast = restoredOffset(info.Next, now)
	}
	return writeMeta(fsys, dir, m)
}

// restoredOffset leaves room when a log gave out more than 2²⁰ offsets per second of its life, or the
// clock went back: 2⁴⁰ events are eleven days at a million a second.
func restoredOffset(next pipeline.Offset, now time.Time) pipeline.Offset {
	at := pipeline.FirstOffset(now)
	if at <= next {
		return next + 1<<40
	}
	return at
}
