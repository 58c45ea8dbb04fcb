// Package file writes events as JSON lines to a file. What Deliver reported as done is on the disk.
//
// The file is renamed when it grows beyond a size. A last line that a crash left torn is cut at the next
// open: it was never reported as done, so it comes again.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Options of a Sink.
type Options struct {
	// Path of the file; its folder is made when missing.
	Path string
	// Rotate is the size in bytes beyond which the file is renamed; 0 = never. A Delivery is never split.
	Rotate int64
	// Keep is how many renamed files stay; 0 = all.
	Keep int
	// Source is the name of the events' source.
	Source string
	// Encoder of the events: encode.JSON with the Separator '\n'.
	Encoder *encode.Encoder
}

// Sink appends to one file. Deliveries wait for each other.
type Sink struct {
	o Options

	mu     sync.Mutex
	closed bool
	f      handle // nil until the first Delivery, and after an error
	size   int64
	g      encode.Gathered
	open   func(path string) (handle, error)
}

// handle is what is used of an *os.File; tests put failing ones in its place.
type handle interface {
	io.ReaderAt
	io.Writer
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
	Close() error
}

// New returns the sink of a file. It opens nothing yet.
func New(o Options) *Sink {
	return &Sink{o: o, open: func(path string) (handle, error) {
		return os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	}}
}

// Deliver implements pipeline.Sink. All events are done, or none.
func (s *Sink) Deliver(_ context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, pipeline.ErrClosed
	}
	s.o.Encoder.Gather(d, &s.g)
	defer s.g.Release()
	if err := s.append(s.g.Parts, int64(s.g.Size), true); err != nil {
		return nil, s.unavailable(err)
	}
	if len(s.g.Errs) == 0 {
		return nil, nil
	}
	out := make(pipeline.Outcomes, len(s.g.Ends))
	for _, ee := range s.g.Errs {
		out[ee.Event] = pipeline.Outcome{Class: pipeline.Fatal, Reason: ee.Error()}
	}
	return out, nil
}

// Resolve implements pipeline.Resolver.
func (s *Sink) Resolve(_ context.Context, o pipeline.Offset, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return pipeline.ErrClosed
	}
	line := append(encode.Resolved(s.o.Source, o, t), '\n')
	if err := s.append([][]byte{line}, int64(len(line)), false); err != nil {
		return s.unavailable(err)
	}
	return nil
}

// Close implements pipeline.Sink.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.drop()
}

func (s *Sink) drop() error {
	if s.f == nil {
		return nil
	}
	f := s.f
	s.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.o.Path, err)
	}
	return nil
}

// unavailable says that the file cannot be written now: nobody's event is to blame.
func (s *Sink) unavailable(err error) error {
	reason := err.Error()
	switch {
	case errors.Is(err, syscall.ENOSPC):
		reason = fmt.Sprintf("the disk that holds %s is full: make space", s.o.Path)
	case errors.Is(err, syscall.EDQUOT):
		reason = fmt.Sprintf("the disk quota for %s is used up: make space", s.o.Path)
	}
	return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: reason, Err: err}
}

// append writes the parts, all or nothing. With sync they are on the disk when it returns nil.
func (s *Sink) append(parts [][]byte, size int64, sync bool) error {
	if size == 0 {
		return nil
	}
	if err := s.ready(size); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := s.f.Write(p); err != nil {
			// Back to whole lines; when even that fails the next open cuts the torn one.
			err = errors.Join(fmt.Errorf("write %s: %w", s.o.Path, err), s.f.Truncate(s.size))
			return errors.Join(err, s.drop())
		}
	}
	if sync {
		if err := s.f.Sync(); err != nil {
			// What is on the disk is not known now. The lines may stay: they come again.
			return errors.Join(fmt.Errorf("sync %s: %w", s.o.Path, err), s.drop())
		}
	}
	s.size += size
	return nil
}

// ready opens the file where needed, and renames it where it is full.
func (s *Sink) ready(size int64) error {
	if s.f != nil && s.moved() {
		if err := s.drop(); err != nil {
			return err
		}
	}
	if s.f == nil {
		if err := s.reopen(); err != nil {
			return err
		}
	}
	if s.o.Rotate > 0 && s.size > 0 && s.size+size > s.o.Rotate {
		if err := s.rotate(); err != nil {
			return err
		}
		return s.reopen()
	}
	return nil
}

// moved reports whether somebody else renamed or removed the file.
func (s *Sink) moved() bool {
	at, err := os.Stat(s.o.Path)
	if err != nil {
		return true
	}
	ours, err := s.f.Stat()
	return err != nil || !os.SameFile(at, ours)
}

func (s *Sink) reopen() error {
	if err := os.MkdirAll(filepath.Dir(s.o.Path), 0o750); err != nil {
		return fmt.Errorf("make the folder of the file: %w", err)
	}
	f, err := s.open(s.o.Path)
	if err != nil {
		return fmt.Errorf("open file: %w", err)
	}
	size, err := repair(f, s.o.Path)
	if err == nil {
		err = syncFolder(s.o.Path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	s.f, s.size = f, size
	return nil
}

// begin is how each of our lines begins.
const begin = `{"specversion":"1.0"`

// repair cuts a torn last line and returns the size. It never cuts what is not ours.
func repair(f handle, path string) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is no regular file", path)
	}
	size := info.Size()
	var tail []byte
	at := size
	for at > 0 && bytes.IndexByte(tail, '\n') < 0 {
		n := min(at, 64<<10)
		block := make([]byte, n, int(n)+len(tail))
		if _, err := f.ReadAt(block, at-n); err != nil {
			return 0, fmt.Errorf("read the end of %s: %w", path, err)
		}
		tail = append(block, tail...)
		at -= n
	}
	tail = tail[bytes.LastIndexByte(tail, '\n')+1:]
	if len(tail) == 0 {
		return size, nil
	}
	// A crash may leave zeros where data was not written yet.
	if text := bytes.Trim(tail, "\x00"); !strings.HasPrefix(string(text), begin) && !strings.HasPrefix(begin, string(text)) {
		return 0, fmt.Errorf("the last line of %s has no end and is none of ours: move the file away", path)
	}
	size -= int64(len(tail))
	if err := f.Truncate(size); err != nil {
		return 0, fmt.Errorf("cut the torn last line of %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("sync %s: %w", path, err)
	}
	return size, nil
}

// stampLayout sorts as text in the order of time.
const stampLayout = "20060102T150405.000000Z"

// rotate renames the file to PATH.TIME and removes what is more than Keep.
func (s *Sink) rotate() error {
	if err := s.f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync %s: %w", s.o.Path, err), s.drop())
	}
	if err := s.drop(); err != nil {
		return err
	}
	old, err := Rotated(s.o.Path)
	if err != nil {
		return err
	}
	stamp := time.Now().UTC()
	if n := len(old); n > 0 { // order of names = order of content, also when the clock went back
		if last, err := time.Parse(stampLayout, old[n-1][len(s.o.Path)+1:]); err == nil && !stamp.Truncate(time.Microsecond).After(last) {
			stamp = last.Add(time.Microsecond)
		}
	}
	name := s.o.Path + "." + stamp.Format(stampLayout)
	if err := os.Rename(s.o.Path, name); err != nil {
		return fmt.Errorf("rotate: %w", err)
	}
	if old = append(old, name); s.o.Keep > 0 && len(old) > s.o.Keep {
		for _, o := range old[:len(old)-s.o.Keep] {
			if err := os.Remove(o); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove rotated file: %w", err)
			}
		}
	}
	return syncFolder(s.o.Path)
}

// Rotated returns the renamed files of path, oldest first.
func Rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list rotated files: %w", err)
	}
	var out []string
	prefix := filepath.Base(path) + "."
	for _, e := range entries {
		if stamp, ok := strings.CutPrefix(e.Name(), prefix); ok {
			if _, err := time.Parse(stampLayout, stamp); err == nil {
				out = append(out, path+"."+stamp)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// syncFolder makes a new or renamed name durable.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
