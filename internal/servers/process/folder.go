package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Folder is what one server owns on disk. Its lock is held by our process, so it is free once we are
// dead, however we died.
type Folder struct {
	Path string
	lock *os.File // nil after remove
}

// NewFolder makes a folder and removes those of dead processes.
func NewFolder(prefix string) (*Folder, error) {
	base := filepath.Join(os.TempDir(), "leat-servers-"+strconv.Itoa(os.Geteuid()))
	if err := os.MkdirAll(base, 0o755); err != nil {
		return nil, err
	}
	if err := ownedByUs(base); err != nil {
		return nil, err
	}
	// A server reports its data folder without links; ready compares it.
	base, err := filepath.EvalSymlinks(base)
	if err != nil {
		return nil, err
	}
	if err := Open(base, Unprivileged()); err != nil {
		return nil, err
	}
	// One at a time: a lock file is never seen between its making and its locking.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	unlock, err := LockFile(ctx, filepath.Join(base, ".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := sweep(base); err != nil {
		return nil, err
	}
	path, err := os.MkdirTemp(base, prefix+"-")
	if err != nil {
		return nil, err
	}
	f := &Folder{Path: path}
	if err := os.Chmod(path, 0o755); err != nil {
		return nil, errors.Join(err, f.Remove())
	}
	if f.lock, err = os.Create(path + ".lock"); err != nil {
		return nil, errors.Join(err, f.Remove())
	}
	if got, err := tryLock(f.lock); err != nil || !got {
		return nil, errors.Join(fmt.Errorf("lock the new folder %s", path), err, f.Remove())
	}
	return f, nil
}

// Remove deletes the folder and gives its lock back; twice is fine.
func (f *Folder) Remove() error {
	err := os.RemoveAll(f.Path)
	if f.lock != nil {
		err = errors.Join(err, os.Remove(f.Path+".lock"), f.lock.Close())
		f.lock = nil
	}
	return err
}

// sweep removes the folders in base whose process is dead, and ends a server that still runs there
// (none does on Linux). base's lock is held.
func sweep(base string) error {
	locks, err := filepath.Glob(filepath.Join(base, "*-*.lock"))
	if err != nil {
		return err
	}
	for _, name := range locks {
		if err := sweepOne(name); err != nil {
			return fmt.Errorf("remove what a dead process left: %w", err)
		}
	}
	return nil
}

func sweepOne(lock string) (err error) {
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil // its owner has just removed it
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	got, err := tryLock(f)
	if err != nil || !got {
		return err
	}
	dir := strings.TrimSuffix(lock, ".lock")
	killLeft(dir)
	if os.RemoveAll(dir) != nil {
		return nil // a dying server still writes there: the next sweep removes it
	}
	return os.Remove(lock)
}

// killLeft ends the server of dir if its noted pid is still a process that names dir; best effort.
func killLeft(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return
	}
	said, err := exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil || !strings.Contains(string(said), dir) {
		return
	}
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill() // it may be gone by now
	}
}
