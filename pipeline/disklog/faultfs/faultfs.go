// Package faultfs is a simulated file system for tests of the log: it loses what was not synced when the
// machine crashes, tears it and writes it out of order sector by sector, fails syncs, fills up, and
// crashes at any operation. It implements diskfs.FS.
//
// Model. A write lands in the cache, where readers see it. Sync makes a file's writes durable. A crash
// leaves, of each sector that was not synced, any of the contents that it had since the last sync: the
// disk may have written any of them, in any order. A failed sync marks the writes clean, as Linux does:
// the cache still shows them, a later sync does not write them. Creations, renames and removals are
// durable after SyncDir; of those that are not, a crash keeps some number from the first on, as a journal does.
package faultfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"syscall"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"
)

const sectorSize = 512

var (
	// ErrCrashed: the machine is down; every operation fails until Restart.
	ErrCrashed = errors.New("simulated crash")
	// ErrSync is what a failed sync returns.
	ErrSync = syscall.EIO
)

// FS is the simulated file system. The zero value is not usable: see New.
type FS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	cache   map[string]*inode // the folder as it is seen
	durable map[string]*inode // the folder as it is on the disk
	journal []func(map[string]*inode)
	ops     int
	crashAt int
	down    bool
	life    int // files opened before a crash stay dead
	locked  map[string]bool
	space   int64 // bytes left; -1: endless
	failing int   // syncs that will fail
}

type inode struct {
	data []byte // as it is seen
	disk []byte // as it is on the disk
	// pending lists, per sector, the contents that it had since the last sync, oldest first.
	pending map[int][][]byte
	sizes   []int // sizes since the last sync
}

// New returns an empty file system whose faults are drawn from seed.
func New(seed uint64) *FS {
	return &FS{rng: rand.New(rand.NewPCG(seed, 1)), cache: map[string]*inode{}, durable: map[string]*inode{}, locked: map[string]bool{}, crashAt: -1, space: -1}
}

// CrashAt makes the machine crash before the n-th operation from now that changes something, from 0.
// Negative: never.
func (f *FS) CrashAt(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops, f.crashAt = 0, n
}

// Ops is how many operations changed something since CrashAt.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Down reports whether the machine has crashed.
func (f *FS) Down() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

// FailSyncs makes the next n syncs of files fail.
func (f *FS) FailSyncs(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = n
}

// Space sets how many bytes files may still grow; negative: without end.
func (f *FS) Space(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.space = n
}

// Crash loses what is not durable, now. Every operation fails until Restart.
func (f *FS) Crash() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crash()
}

func (f *FS) crash() {
	if f.down {
		return
	}
	f.down = true
	f.life++
	for _, step := range f.journal[:f.rng.IntN(len(f.journal)+1)] {
		step(f.durable)
	}
	f.journal = nil
	seen := map[*inode]bool{}
	for _, name := range slices.Sorted(maps.Keys(f.durable)) { // the same seed gives the same crash
		if n := f.durable[name]; !seen[n] {
			seen[n] = true
			n.settle(f.rng)
		}
	}
	f.cache = map[string]*inode{}
	for name, n := range f.durable {
		f.cache[name] = n
	}
	clear(f.locked)
}

// settle makes the disk's content what the crash left of it.
func (n *inode) settle(rng *rand.Rand) {
	size := len(n.disk)
	if len(n.sizes) > 0 {
		if k := rng.IntN(len(n.sizes) + 1); k > 0 {
			size = n.sizes[k-1]
		}
	}
	disk := make([]byte, size)
	copy(disk, n.disk)
	sectors := make([]int, 0, len(n.pending))
	for s := range n.pending {
		sectors = append(sectors, s)
	}
	sort.Ints(sectors)
	for _, s := range sectors {
		states := n.pending[s]
		if k := rng.IntN(len(states) + 1); k > 0 && s*sectorSize < size {
			copy(disk[s*sectorSize:min(size, (s+1)*sectorSize)], states[k-1])
		}
	}
	n.disk, n.data = disk, append([]byte(nil), disk...)
	n.pending, n.sizes = nil, nil
}

// Restart brings the machine back; files have to be opened anew.
func (f *FS) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crash()
	f.down, f.ops, f.crashAt, f.failing = false, 0, -1, 0
}

// Flip changes one bit of a file, in the cache and on the disk.
func (f *FS) Flip(name string, off int64, bit int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.cache[name]
	if n == nil || off >= int64(len(n.data)) {
		return fs.ErrNotExist
	}
	n.data[off] ^= 1 << bit
	if off < int64(len(n.disk)) {
		n.disk[off] ^= 1 << bit
	}
	return nil
}

// step counts an operation that changes something, and crashes when its time has come.
func (f *FS) step() error {
	if f.down {
		return ErrCrashed
	}
	if f.crashAt >= 0 && f.ops == f.crashAt {
		f.crash()
		return ErrCrashed
	}
	f.ops++
	return nil
}

// OpenFile opens or creates a file.
func (f *FS) OpenFile(name string, flag int) (diskfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, ErrCrashed
	}
	n := f.cache[name]
	if n == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		if err := f.step(); err != nil {
			return nil, err
		}
		n = &inode{}
		f.cache[name] = n
		f.journal = append(f.journal, func(d map[string]*inode) { d[name] = n })
	} else if flag&os.O_TRUNC != 0 && len(n.data) > 0 {
		if err := f.step(); err != nil {
			return nil, err
		}
		f.refund(int64(len(n.data)))
		n.truncate(0)
	}
	return &file{fs: f, n: n, life: f.life}, nil
}

func (f *FS) refund(n int64) {
	if f.space >= 0 {
		f.space += n
	}
}

// Rename renames a file over another.
func (f *FS) Rename(old, new string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	n := f.cache[old]
	if n == nil {
		return &fs.PathError{Op: "rename", Path: old, Err: fs.ErrNotExist}
	}
	delete(f.cache, old)
	f.cache[new] = n
	f.journal = append(f.journal, func(d map[string]*inode) { delete(d, old); d[new] = n })
	return nil
}

// Remove unlinks a file.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	n := f.cache[name]
	if n == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	f.refund(int64(len(n.data)))
	delete(f.cache, name)
	f.journal = append(f.journal, func(d map[string]*inode) { delete(d, name) })
	return nil
}

// ReadDir lists the files of a folder.
func (f *FS) ReadDir(dir string) (names []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, ErrCrashed
	}
	for name := range f.cache {
		if filepath.Dir(name) == filepath.Clean(dir) {
			names = append(names, filepath.Base(name))
		}
	}
	sort.Strings(names)
	return names, nil
}

// MkdirAll does nothing: folders are there.
func (f *FS) MkdirAll(string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return ErrCrashed
	}
	return nil
}

// SyncDir makes all names durable.
func (f *FS) SyncDir(string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	for _, step := range f.journal {
		step(f.durable)
	}
	f.journal = nil
	return nil
}

// Lock takes a lock until the result is closed or the machine crashes.
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, ErrCrashed
	}
	if f.locked[name] {
		return nil, errors.New("in use by process 1")
	}
	f.locked[name] = true
	return unlock(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.locked, name)
	}), nil
}

type unlock func()

func (u unlock) Close() error {
	u()
	return nil
}
