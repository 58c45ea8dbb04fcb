package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/state"
)

// LogDir is the folder of a source's log in a data folder; with an empty source the folder of all of them.
func LogDir(data, source string) string { return logFolder(data, source) }

// Backup copies state and logs of a data folder, which a server may be using, to a new folder: first the
// state, then the logs, so that no cursor of the copy is beyond its log. The copy is marked: its logs go on
// with offsets that the original will never hand out.
func Backup(ctx context.Context, data, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return fmt.Errorf("back up to %s: %w", to, err)
	}
	if err := state.Copy(ctx, stateFile(data), stateFile(to)); err != nil {
		return err
	}
	logs, err := os.ReadDir(logFolder(data, ""))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("back up the logs: %w", err)
	}
	for _, l := range logs {
		if !l.IsDir() {
			continue
		}
		if err := copyLog(ctx, filepath.Join(logFolder(data, ""), l.Name()), filepath.Join(logFolder(to, ""), l.Name())); err != nil {
			return fmt.Errorf("back up the log of %s: %w", l.Name(), err)
		}
	}
	return nil
}

// copyLog copies the segments as far as they are good at this moment: what is being appended is not.
func copyLog(ctx context.Context, from, to string) error {
	sum, err := disklog.Info(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, seg := range sum.Segments {
		if err := ctx.Err(); err != nil {
			return err
		}
		size := seg.Used
		if seg.Sealed {
			size = seg.Size // with its footer
		}
		// a segment that retention took meanwhile is no loss: it is not part of the log any more
		name := filepath.Base(seg.File)
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name), size); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := copyFile(filepath.Join(from, "shapes"), filepath.Join(to, "shapes"), 1<<40); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := copyFile(filepath.Join(from, "meta"), filepath.Join(to, "meta"), 1<<20); err != nil {
		return err
	}
	return disklog.MarkRestored(to, time.Now())
}

func copyFile(from, to string, size int64) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, io.LimitReader(in, size)); err != nil {
		return err
	}
	return out.Sync()
}
