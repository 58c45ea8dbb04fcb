package faultfs

import (
	"io"
	"syscall"
)

type file struct {
	fs   *FS
	n    *inode
	life int
}

func (f *file) dead() error {
	if f.fs.down || f.life != f.fs.life {
		return ErrCrashed
	}
	return nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.dead(); err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteVec(pieces [][]byte, off int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.dead(); err != nil {
		return err
	}
	if err := f.fs.step(); err != nil {
		return err
	}
	for _, p := range pieces {
		grows := off + int64(len(p)) - int64(len(f.n.data))
		if grows > 0 && f.fs.space >= 0 {
			if grows > f.fs.space { // what fits is written, as a short write does
				fit := int64(len(p)) - (grows - f.fs.space)
				if fit > 0 {
					f.n.write(p[:fit], off)
					f.fs.space = 0
				}
				return syscall.ENOSPC
			}
			f.fs.space -= grows
		}
		f.n.write(p, off)
		off += int64(len(p))
	}
	return nil
}

func (n *inode) write(p []byte, off int64) {
	if len(p) == 0 {
		return
	}
	if n.pending == nil {
		n.pending = map[int][][]byte{}
	}
	end := int(off) + len(p)
	if end > len(n.data) {
		n.data = append(n.data, make([]byte, end-len(n.data))...)
		n.sizes = append(n.sizes, end)
	}
	copy(n.data[off:], p)
	for s := int(off) / sectorSize; s*sectorSize < end; s++ {
		content := make([]byte, sectorSize)
		copy(content, n.data[s*sectorSize:min(len(n.data), (s+1)*sectorSize)])
		n.pending[s] = append(n.pending[s], content)
	}
}

func (n *inode) truncate(size int) {
	if size <= len(n.data) {
		n.data = n.data[:size:size]
	} else {
		n.data = append(n.data, make([]byte, size-len(n.data))...)
	}
	n.sizes = append(n.sizes, size)
}

// Sync makes the file's content durable, or fails and forgets that it is not.
func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.dead(); err != nil {
		return err
	}
	if err := f.fs.step(); err != nil {
		return err
	}
	if f.fs.failing > 0 {
		f.fs.failing--
		seen := f.n.data
		f.n.settle(f.fs.rng)
		f.n.data = seen // the cache shows what the disk may not have
		return ErrSync
	}
	f.n.sync()
	return nil
}

func (n *inode) sync() {
	if len(n.sizes) > 0 {
		disk := make([]byte, len(n.data))
		copy(disk, n.disk)
		n.disk = disk
	}
	for s := range n.pending {
		if s*sectorSize < len(n.data) {
			if s*sectorSize >= len(n.disk) { // a failed sync took the growth back
				n.disk = append(n.disk, make([]byte, len(n.data)-len(n.disk))...)
			}
			copy(n.disk[s*sectorSize:min(len(n.disk), (s+1)*sectorSize)], n.data[s*sectorSize:])
		}
	}
	n.pending, n.sizes = nil, nil
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.dead(); err != nil {
		return err
	}
	if err := f.fs.step(); err != nil {
		return err
	}
	f.n.truncate(int(size))
	return nil
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.dead(); err != nil {
		return 0, err
	}
	return int64(len(f.n.data)), nil
}

func (f *file) Close() error { return nil }
