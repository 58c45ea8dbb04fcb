package disklog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"
)

// prepared is a file whose every byte was written and synced: writing into it changes no metadata.
type prepared struct {
	file diskfs.File
	name string
	size int64
}

// spare is a retired segment's file that can be written again.
type spare struct {
	name string
	size int64
}

const (
	// ramp: the first segment is 1/16 of the size asked for, each next one four times as large.
	rampFirst, rampStep = 16, 4
	// syncEvery bounds how much of a file that is written ahead waits in the cache, so that the syncs of
	// the active segment do not queue behind it.
	syncEvery = 4 << 20
	// handOver is how much of a new file must be written before a writer in a hurry gets it.
	handOver = 16 << 20
	// retainEvery is how often ages are looked at.
	retainEvery = 30 * time.Second
)

func (l *Log) firstSize() int64 { return max(minSegment, l.opt.SegmentSize/rampFirst) }

func (l *Log) nextSize(before int64) int64 {
	return min(l.opt.SegmentSize, max(l.firstSize(), before*rampStep))
}

// prepareLoop writes segments ahead and retires old ones, one thing at a time, until the writer is done.
func (l *Log) prepareLoop() {
	tick := time.NewTicker(retainEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.writerDone:
			return
		case <-l.prepare:
		case <-tick.C:
		}
		l.prepareNext()
		l.retain()
		l.prepareNext() // the writer may have asked meanwhile
	}
}

// prepareNext makes the file that was asked for. While the disk is full it tries again until there is
// space or the log is closed.
func (l *Log) prepareNext() {
	l.mu.Lock()
	want := l.mu.want
	if l.mu.prepared != nil {
		want = 0
	}
	l.mu.Unlock()
	if want == 0 {
		return
	}
	full := false
	var p *prepared
	var err error
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if p, err = l.makeSegment(want, l.hurried); err == nil || !diskfs.NoSpace(err) {
			break
		}
		if !full {
			full = true
			l.opt.Observer.LogFull(l.opt.Source, true)
		}
		l.retain()
		if !l.pause(pause) {
			err = errors.Join(errDropped, err)
			break
		}
	}
	if full && err == nil {
		l.opt.Observer.LogFull(l.opt.Source, false)
	}
	l.mu.Lock()
	l.mu.prepared, l.mu.prepError = p, err
	l.mu.want, l.mu.hurry = 0, false
	l.mu.Unlock()
	poke(l.ready)
}

func (l *Log) hurried() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.hurry
}

// takePrepared waits for the next segment's file.
func (l *Log) takePrepared() (*prepared, error) {
	for {
		l.mu.Lock()
		p, err := l.mu.prepared, l.mu.prepError
		l.mu.prepared = nil
		if p == nil && err == nil {
			l.mu.hurry = true
			if l.mu.want == 0 {
				l.mu.want = l.nextSize(l.mu.segs[len(l.mu.segs)-1].size)
			}
		}
		l.mu.Unlock()
		if p != nil || err != nil {
			return p, err
		}
		poke(l.prepare)
		<-l.ready
	}
}

// makeSegment makes a file of size bytes, all written: a retired one, else a new one full of zeros. When
// hurried says so, a part of the size will do.
func (l *Log) makeSegment(size int64, hurried func() bool) (*prepared, error) {
	name := filepath.Join(l.opt.Dir, nextName)
	if p, err := l.recycle(name, size); p != nil || err != nil {
		return p, err
	}
	f, err := l.opt.FS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	off, err := fill(f, size, func(off int64) bool { return off >= handOver && hurried() })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write segment ahead: %w", err), f.Close(), l.opt.FS.Remove(name))
	}
	return &prepared{file: f, name: name, size: off}, nil
}

// fill writes zeros and syncs them, up to size or where enough says so: past the cache where that can be, as copying
// them there took up to a quarter of all CPU time where memory was busy.
func fill(f diskfs.File, size int64, enough func(off int64) bool) (int64, error) {
	if d, ok := f.(diskfs.Direct); ok && size%diskfs.Page == 0 && d.SetDirect(true) == nil {
		off, err := pour(f, size, size, enough) // nothing gathers in the cache: one sync will do
		if err = errors.Join(err, d.SetDirect(false)); !errors.Is(err, syscall.EINVAL) {
			return off, err
		}
	} // or a file system says only now that it cannot
	return pour(f, size, syncEvery, enough)
}

// pour is fill as the file is, with a sync after each `every` bytes.
func pour(f diskfs.File, size, every int64, enough func(off int64) bool) (off int64, err error) {
	for off < size {
		n := min(size-off, int64(len(zeros)))
		if err := f.WriteVec([][]byte{zeros[:n]}, off); err != nil {
			return off, err
		}
		off += n
		over := off == size || enough(off)
		if over || off%every == 0 {
			if err := f.Sync(); err != nil || over {
				return off, err
			}
		}
	}
	return off, nil
}

// leastOpening is the smallest segment with which a log is opened.
const leastOpening = 256 << 10

// makeOnOpening makes the segment that a log is opened with. On a disk that is all but full a smaller one
// must do: without it nothing could be delivered, and nothing removed.
func (l *Log) makeOnOpening(size int64) (*prepared, error) {
	for ; ; size = max(size/4, leastOpening) {
		p, err := l.makeSegment(size, func() bool { return false })
		if !diskfs.NoSpace(err) {
			return p, err
		}
		if size <= leastOpening {
			return nil, fmt.Errorf("open the log in %s: the disk is full: free some space: %w", l.opt.Dir, err)
		}
	}
}

// recycle takes a spare file of about the right size, if there is one.
func (l *Log) recycle(name string, size int64) (*prepared, error) {
	l.mu.Lock()
	if len(l.mu.spares) == 0 || l.mu.spares[0].size < size/2 {
		l.mu.Unlock()
		return nil, nil
	}
	sp := l.mu.spares[0]
	l.mu.spares = l.mu.spares[1:]
	l.mu.Unlock()
	f, err := l.opt.FS.OpenFile(sp.name, os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("recycle segment: %w", err)
	}
	if err := l.opt.FS.Rename(sp.name, name); err != nil {
		return nil, errors.Join(fmt.Errorf("recycle segment: %w", err), f.Close())
	}
	return &prepared{file: f, name: name, size: sp.size}, nil
}

// adopt keeps one spare file of an earlier run and removes the others.
func (l *Log) adopt(names []string) {
	for _, n := range names {
		f, err := l.opt.FS.OpenFile(n, os.O_RDWR)
		if err != nil {
			continue
		}
		size, err := f.Size()
		_ = f.Close() // only its size was asked for
		if err == nil && len(l.mu.spares) == 0 {
			l.mu.spares = append(l.mu.spares, spare{name: n, size: size})
			continue
		}
		_ = l.opt.FS.Remove(n) // a spare that stays costs space, nothing else
	}
}
