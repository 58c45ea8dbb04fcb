// Package disklog is the embedded log: one ordered, durable record of batches in segment files.
//
// Terms. A Block is what package record writes for one batch or one control record. A group is the
// blocks that are written and synced together: whatever was queued while the group before was being
// synced. A segment is one file of blocks that describes itself; it is sealed when the next one begins.
// The proof is the address up to which the log is known to be synced; every block carries the proof of
// the moment that it was written, which tells a torn tail from damage later. The ring is the shared tail:
// the newest batches as they are in memory. Readers of segments that are near one another share what they
// decode (group.go). FORMAT.md beside this file describes the bytes.
//
// Goroutines: one writer owns the active segment and all that is appended; one preparer writes the next
// segment ahead and runs retention. Both are joined by Close.
package disklog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// Log implements pipeline.Log on segment files. Safe for concurrent use, but Append is for one caller.
type Log struct {
	opt    Options
	meta   meta
	id     uuid.UUID
	lock   io.Closer
	tables *registry
	wg     sync.WaitGroup
	// stop ends waiting for space; drain (under mu) ends the writer when its queue is empty.
	stop    context.Context
	cancel  context.CancelFunc
	prepare chan struct{} // wakes the preparer
	work    chan struct{} // wakes the writer
	ready   chan struct{} // tells the writer that the preparer has something
	// writerDone is closed when the writer has ended.
	writerDone chan struct{}
	group      group

	mu struct {
		sync.Mutex
		// Append's side.
		queue  []item
		queued int64         // bytes in queue and in the group being written
		room   chan struct{} // closed and replaced when queued shrinks
		next   pipeline.Offset
		ticket uint64
		open   map[string]*unfinished // transactions
		closed bool
		drain  bool
		failed error
		// What is durable.
		synced  pipeline.Synced
		wake    chan struct{} // closed and replaced when there is more, or an end
		tables  map[uint32]known
		notices []pipeline.Notice
		ranges  []pipeline.RangeAt // as state.ranges
		marks   []pipeline.SnapshotMark
		segs    []*segment // oldest first; the last is active
		pins    pins       // what transactions that have not ended hold
		waiting []string   // prepared transactions
		ring    ring
		readers map[*reader]struct{}
		// The preparer's side.
		prepared  *prepared
		hurry     bool
		want      int64 // size of the segment to prepare; 0: none
		prepError error
		spares    []spare
		floor     pipeline.Offset
		floored   bool
		relogging bool   // the writer was asked to write schemas again
		moving    bool   // and to move what open transactions hold
		fixed     uint64 // before that segment are chunks that cannot be moved
		retention Retention
		squeezed  int64 // Squeeze's bound; 0: none
		guard     pipeline.Offset
		guarded   bool
		waits     time.Time // since when retention waits for the guard; zero: it does not
		freed     int64     // bytes of segments that were removed
	}
}

// Open opens the log in opt.Dir, making it when there is none, and recovers what was written: a torn tail
// is cut. A *DamageError says that bytes are damaged that were proven synced: nothing is changed then.
func Open(opt Options) (*Log, error) {
	opt, err := opt.fill()
	if err != nil {
		return nil, err
	}
	if err := opt.FS.MkdirAll(opt.Dir); err != nil {
		return nil, fmt.Errorf("make folder of log: %w", err)
	}
	lock, err := opt.FS.Lock(filepath.Join(opt.Dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("log in %s: %w", opt.Dir, err)
	}
	l, err := open(opt, lock)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return l, nil
}

func open(opt Options, lock io.Closer) (log *Log, err error) {
	l := &Log{opt: opt, lock: lock, tables: newRegistry(),
		prepare: make(chan struct{}, 1), work: make(chan struct{}, 1), ready: make(chan struct{}, 1), writerDone: make(chan struct{})}
	l.mu.room, l.mu.wake, l.mu.retention = make(chan struct{}), make(chan struct{}), opt.Retention
	l.mu.open, l.mu.readers = map[string]*unfinished{}, map[*reader]struct{}{}
	l.group.init(opt.Memory / 4)
	l.stop, l.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			l.cancel()
		}
	}()
	if err := l.openMeta(); err != nil {
		return nil, err
	}
	fd, err := recoverLog(opt.FS, opt.Dir, l.id, l.tables, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	w, err := l.start(fd)
	if err != nil {
		for _, s := range l.mu.segs {
			if s.file != nil {
				err = errors.Join(err, s.file.Close())
			}
		}
		return nil, err
	}
	l.wg.Go(w.run)
	l.wg.Go(l.prepareLoop)
	return l, nil
}

func (l *Log) openMeta() error {
	m, err := readMeta(l.opt.FS, l.opt.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		seqs, _, lerr := listSegments(l.opt.FS, l.opt.Dir)
		if lerr != nil {
			return lerr
		}
		if len(seqs) > 0 {
			return fmt.Errorf("%s holds segments but no %q file; restore it from a backup of the folder", l.opt.Dir, metaName)
		}
		m = newMeta(l.opt.Source, l.opt.Now())
		err = writeMeta(l.opt.FS, l.opt.Dir, m)
	}
	if err != nil {
		return err
	}
	if m.Source != l.opt.Source {
		return fmt.Errorf("%s holds the log of source %q, not of %q; give each source a folder of its own", l.opt.Dir, m.Source, l.opt.Source)
	}
	l.meta = m
	if l.id, err = uuid.Parse(m.ID); err != nil {
		return fmt.Errorf("%s: log id: %w", filepath.Join(l.opt.Dir, metaName), err)
	}
	return nil
}

// start makes the recovered log ready for writing: the tail that is not proven is written again and
// synced, since after a failed sync the cache may show what the disk never got; then a record says that
// the log was opened, whose epoch keeps torn bytes behind it from ever being taken for new ones.
func (l *Log) start(fd *found) (*writer, error) {
	l.mu.segs = fd.segs
	st := fd.st
	w := &writer{l: l, st: st}
	l.adopt(fd.spares)
	for _, s := range fd.half {
		if err := l.retire(s); err != nil {
			return nil, fmt.Errorf("remove old segment: %w", err)
		}
	}
	if len(fd.segs) == 0 {
		st.next = max(l.meta.First, l.meta.AtLeast)
		if err := w.first(); err != nil {
			return nil, err
		}
	} else {
		s := fd.segs[len(fd.segs)-1]
		gap := max(st.next, l.meta.AtLeast)
		if err := l.noteGap(st.next); err != nil {
			return nil, err
		}
		w.continueIn(s, fd)
		if !fd.lastSeal {
			if err := w.rewriteTail(fd.proven); err != nil {
				return nil, err
			}
		}
		st.next = gap
		if err := w.reopen(fd.lastSeal); err != nil {
			return nil, err
		}
	}
	for open, tx := range st.prepared {
		u := new(unfinished)
		for _, c := range tx.chunks {
			u.events += c.Written()
		}
		l.mu.open[open] = u
	}
	l.mu.pins = w.pins()
	l.mu.next, l.mu.ticket = st.next, st.ticket
	l.mu.synced = pipeline.Synced{Ticket: st.ticket, Next: st.next, End: st.last}
	l.mu.ring.reset(w.address(), st.next)
	l.publishState(st)
	return w, nil
}

// publishState shows the newest tables and notices to others. Nobody else is there.
func (l *Log) publishState(st *state) {
	l.mu.tables = maps.Clone(st.tables)
	l.mu.notices, l.mu.ranges, l.mu.marks, l.mu.waiting = st.notices, st.ranges, st.marks, st.waiting()
}

// ID returns the log's UUID.
func (l *Log) ID() string { return l.meta.ID }

// Created is when the log was made.
func (l *Log) Created() time.Time { return l.meta.Created }

// Synced blocks until a ticket above after is durable. Tickets go on where they were when a log is opened
// again, so that Synced(ctx, 0) of such a log returns at once with what was recovered.
func (l *Log) Synced(ctx context.Context, after uint64) (pipeline.Synced, error) {
	for {
		l.mu.Lock()
		s, wake, failed, closed := l.mu.synced, l.mu.wake, l.mu.failed, l.mu.closed
		l.mu.Unlock()
		switch {
		case s.Ticket > after:
			return s, nil
		case failed != nil:
			return s, failed
		case closed:
			return s, pipeline.ErrClosed
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}

// Bounds returns the first offset kept and the next one.
func (l *Log) Bounds() (oldest, next pipeline.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.segs[0].base(), l.mu.synced.Next
}

// Last returns the End of the last durable batch that had one.
func (l *Log) Last() pipeline.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.synced.End
}

// Tables returns the newest durable version of every table, in no order. The slice is the caller's.
func (l *Log) Tables() []*schemas.Table {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*schemas.Table, 0, len(l.mu.tables))
	for _, k := range l.mu.tables {
		all = append(all, k.table)
	}
	return all
}

// Notices returns what is in force: quarantines not released, and the newest gap of each table.
func (l *Log) Notices() []pipeline.Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]pipeline.Notice(nil), l.mu.notices...)
}

// Prepared implements pipeline.PreparedKeeper.
func (l *Log) Prepared() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.waiting
}

// Ranges returns the maps of the key spaces' ranges at the oldest offset and each change since.
func (l *Log) Ranges() []pipeline.RangeAt {
	l.mu.Lock()
	all, oldest := l.mu.ranges, l.mu.segs[0].base()
	l.mu.Unlock()
	return pipeline.FoldRanges(all[:len(all):len(all)], oldest)
}

// Snapshots returns the last durable marks of snapshot jobs.
func (l *Log) Snapshots() []pipeline.SnapshotMark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.mu.marks)
}

// wakeAll tells everybody who waits to look again. l.mu is held.
func (l *Log) wakeAll() {
	close(l.mu.wake)
	l.mu.wake = make(chan struct{})
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// fail ends the log: nothing more becomes durable. The first error counts.
func (l *Log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.failed == nil {
		l.mu.failed = fmt.Errorf("log of %s: %w", l.opt.Source, err)
	}
	l.dropQueue()
	l.wakeAll()
	l.makeRoom()
}

// Close writes and syncs what is queued, ends readers with ErrClosed and joins. While the disk is full it
// gives up what is queued: none of that was told durable. Idempotent.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.mu.drain {
		l.mu.Unlock()
		l.wg.Wait()
		return nil
	}
	l.mu.drain = true
	l.makeRoom()
	l.mu.Unlock()
	l.cancel()
	poke(l.work)
	poke(l.prepare)
	l.wg.Wait()

	l.mu.Lock()
	l.mu.closed = true
	l.dropQueue()
	l.wakeAll()
	readers := make([]*reader, 0, len(l.mu.readers))
	for r := range l.mu.readers {
		readers = append(readers, r)
	}
	drop := l.mu.ring.clear()
	err := l.mu.failed
	if l.mu.prepared != nil {
		err = errors.Join(err, l.mu.prepared.file.Close())
	}
	if a := l.mu.segs[len(l.mu.segs)-1]; a.file != nil && a.refs == 0 {
		err = errors.Join(err, a.file.Close())
		a.file = nil
	}
	l.mu.Unlock()
	release(drop)
	for _, r := range readers {
		err = errors.Join(err, r.Close())
	}
	return errors.Join(err, l.lock.Close())
}

func release(batches []*pipeline.Batch) {
	for _, b := range batches {
		b.Release()
	}
}

var _ pipeline.Log = (*Log)(nil)

var errDropped = errors.New("not written: the log was closed while its disk was full")
