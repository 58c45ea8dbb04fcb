// Package diskfs is the seam between the log and the file system below it, with the real one: gathering
// writes, syncs that cost no metadata, a lock that ends with its process. Package faultfs is one that fails.
package diskfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

// FS is the file system below a log. The real one is OS; package faultfs simulates one that fails.
type FS interface {
	// OpenFile opens, with the flags of package os.
	OpenFile(name string, flag int) (File, error)
	Rename(old, new string) error
	Remove(name string) error
	// ReadDir returns the names in a folder, sorted.
	ReadDir(dir string) ([]string, error)
	MkdirAll(dir string) error
	// SyncDir makes creations, renames and removals in the folder durable.
	SyncDir(dir string) error
	// Lock takes the lock file for this process until the result is closed. An error says who has it.
	Lock(name string) (io.Closer, error)
}

// File is one file of an FS. Safe for concurrent use.
type File interface {
	io.ReaderAt
	// WriteVec writes the pieces one behind the other at off, all of them or it returns an error.
	WriteVec(pieces [][]byte, off int64) error
	// Sync makes what was written durable, and the size where it changed.
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}

// Direct is the optional capability of a File to write past the system's cache, from memory, at offsets and in sizes that
// are multiples of Page.
type Direct interface {
	// SetDirect turns that on or off; an error where the file system cannot.
	SetDirect(on bool) error
}

// Page is the unit in which systems keep files in memory and disks take them, in bytes.
const Page = 4096

// OS is the operating system's file system.
type OS struct{}

type osFile struct{ *os.File }

// OpenFile opens; a file that it creates is for the owner alone.
func (OS) OpenFile(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename renames.
func (OS) Rename(old, new string) error { return os.Rename(old, new) }

// Remove unlinks.
func (OS) Remove(name string) error { return os.Remove(name) }

// MkdirAll makes a folder for the owner alone, with what is above it, and makes that durable.
func (OS) MkdirAll(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return OS{}.SyncDir(filepath.Dir(dir))
}

// ReadDir lists.
func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	return names, err
}

// SyncDir syncs a folder.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// Lock takes an advisory lock and writes the process's id into the file.
func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		var b [20]byte
		n, _ := f.ReadAt(b[:], 0)
		_ = f.Close()
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("in use by process %s: one process at a time may write a log; stop that one first", strings.TrimSpace(string(b[:n])))
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if _, err := f.WriteAt([]byte(pid), 0); err == nil {
		err = f.Truncate(int64(len(pid)))
	} else if !errors.Is(err, syscall.ENOSPC) { // the pid is only for the message
		return nil, errors.Join(fmt.Errorf("write lock file: %w", err), f.Close())
	}
	return f, nil
}

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// writeEach is WriteVec where the system has no gathering write.
func writeEach(f io.WriterAt, pieces [][]byte, off int64) error {
	for _, p := range pieces {
		n, err := f.WriteAt(p, off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// NoSpace reports whether an error says that the disk or the quota is full: waiting may cure it.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
