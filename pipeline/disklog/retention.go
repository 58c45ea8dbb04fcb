package disklog

import (
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Floor tells retention that offsets at or above o are still wanted. Never blocks.
func (l *Log) Floor(o pipeline.Offset) {
	l.mu.Lock()
	moved := !l.mu.floored || o != l.mu.floor
	l.mu.floor, l.mu.floored = o, true
	l.mu.Unlock()
	if moved && l.ageBound() > 0 {
		poke(l.prepare)
	}
}

// SetRetention changes how long segments stay, from now on. Never blocks.
func (l *Log) SetRetention(r Retention) {
	l.mu.Lock()
	l.mu.retention = r
	l.mu.Unlock()
	poke(l.prepare)
}

// Squeeze implements pipeline.Keeper: the oldest segment goes for each new one, whatever the floor says.
func (l *Log) Squeeze(on bool) {
	l.mu.Lock()
	l.mu.squeezed = 0
	if on {
		l.mu.squeezed = max(1, l.sizeFrom(0))
	}
	l.mu.Unlock()
	poke(l.prepare)
}

// guardTime is how long retention waits for what somebody has to copy.
const guardTime = 30 * time.Second

// Doomed implements pipeline.Keeper.
func (l *Log) Doomed() pipeline.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.expired(); n > 0 {
		return l.mu.segs[n].base()
	}
	return 0
}

// Guard implements pipeline.Keeper.
func (l *Log) Guard(o pipeline.Offset) {
	l.mu.Lock()
	moved := !l.mu.guarded || o > l.mu.guard
	l.mu.guard, l.mu.guarded = o, true
	l.mu.Unlock()
	if moved {
		poke(l.prepare)
	}
}

// passes returns how many of the n segments that may go the guard lets go. l.mu is held.
func (l *Log) passes(n int) int {
	if n == 0 || !l.mu.guarded || l.mu.segs[n].base() <= l.mu.guard {
		l.mu.waits = time.Time{}
		return n
	}
	if l.mu.waits.IsZero() {
		l.mu.waits = l.opt.Now()
	}
	if l.opt.Now().Sub(l.mu.waits) >= guardTime {
		return n
	}
	for n > 0 && l.mu.segs[n].base() > l.mu.guard {
		n--
	}
	less, _ := l.cuts(n, l.mu.pins.first)
	return min(n, less)
}

func (l *Log) ageBound() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.retention.Age
}

// sizeBound is the most that the files may take together; 0: no bound. l.mu is held.
func (l *Log) sizeBound() int64 {
	n := l.mu.retention.Size
	if s := l.mu.squeezed; s > 0 && (n == 0 || s < n) {
		n = s
	}
	return n
}

// retain removes what retention lets go, oldest first; each removal is durable before the next, so that
// no hole can be left by a crash.
func (l *Log) retain() {
	for {
		l.mu.Lock()
		n := l.passes(l.expired())
		if n == 0 || l.mu.failed != nil {
			before := l.overdue()
			if before > 0 {
				l.mu.moving = true
				l.mu.queue = append(l.mu.queue, item{move: before})
			}
			l.mu.Unlock()
			if before > 0 {
				poke(l.work)
			}
			return // the writer calls again when they are moved
		}
		ids := l.onlyBefore(l.mu.segs[n].seq)
		if len(ids) > 0 {
			if !l.mu.relogging {
				l.mu.relogging = true
				l.mu.queue = append(l.mu.queue, item{relog: ids})
			}
			l.mu.Unlock()
			poke(l.work)
			return // the writer calls again when they are durable
		}
		gone := slices.Clone(l.mu.segs[:n])
		l.mu.Unlock()
		if err := l.outlive(gone); err != nil { // the disk may be full: then room counts more
			l.opt.Observer.Warned("log of "+l.opt.Source, "shapes of tables are lost with old segments: "+err.Error(), "give the log more room")
		}
		l.mu.Lock()
		if len(l.mu.segs) <= n || l.mu.segs[0] != gone[0] {
			l.mu.Unlock()
			continue
		}
		for _, s := range gone {
			l.mu.freed += s.end - firstBlock
		}
		l.mu.segs = slices.Clone(l.mu.segs[n:])
		l.mu.Unlock()
		for _, s := range gone {
			if err := l.retire(s); err != nil {
				l.opt.Observer.Warned("log of "+l.opt.Source, "an old segment could not be removed: "+err.Error(), "remove it by hand while leat is stopped, or free the folder's rights")
				return
			}
		}
	}
}

// expired returns how many of the oldest segments may go. l.mu is held.
func (l *Log) expired() int { return l.expiredBut(l.mu.pins.first) }

// expiredBut is expired, if the segment pinned and those behind it are needed; 0: none is. l.mu is held.
func (l *Log) expiredBut(pinned uint64) int {
	segs := l.mu.segs
	total, behind := int64(0), int64(0)
	for _, s := range segs {
		total += s.size
		behind += s.fresh()
	}
	// What was moved is behind what can be read, but must not push that out before anybody could read it.
	n := 0
	for ; n < len(segs)-1; n++ {
		total -= segs[n].size
		behind -= segs[n].fresh()
		large := l.tooLarge(total+segs[n].size) && behind >= l.opt.SegmentSize/2
		if !large && !l.tooOld(segs[n], segs[n+1]) {
			break
		}
	}
	if n == 0 {
		return 0
	}
	// What stays must not need chunks of what goes: a transaction goes as a whole or not at all. Under the
	// size quota more goes then, by age less; but not before a segment's worth was written behind it: what is
	// larger than the quota can be read for a while.
	less, more := l.cuts(n, pinned)
	if more > 0 && l.freshFrom(more) >= l.opt.SegmentSize && l.tooLarge(l.sizeFrom(less)) {
		return more
	}
	return less
}

// cuts returns how many of the oldest segments may go without tearing a transaction: the most up to n, and
// the fewest from n on (0: none). l.mu is held.
func (l *Log) cuts(n int, pinned uint64) (less, more int) {
	segs := l.mu.segs
	need := segs[len(segs)-1].seq
	if pinned > 0 {
		need = min(need, pinned)
	}
	for i := len(segs) - 1; i > 0; i-- {
		if need = min(need, segs[i].index.Needs); need < segs[i].seq {
			continue
		}
		if i <= n {
			return i, more
		}
		more = i
	}
	return 0, more
}

// sizeFrom is how large the log is from its i-th segment on. l.mu is held.
func (l *Log) sizeFrom(i int) (total int64) {
	for _, s := range l.mu.segs[max(i, 0):] {
		total += s.size
	}
	return total
}

// freshFrom is how much was first written from the i-th segment on. l.mu is held.
func (l *Log) freshFrom(i int) (total int64) {
	for _, s := range l.mu.segs[i:] {
		total += s.fresh()
	}
	return total
}

func (l *Log) tooLarge(total int64) bool {
	bound := l.sizeBound()
	return bound > 0 && total > bound
}

func (l *Log) tooOld(s, next *segment) bool {
	if l.mu.retention.Age <= 0 || !l.mu.floored || s.index.Next > l.mu.floor {
		return false
	}
	limit := l.opt.Now().Add(-l.mu.retention.Age).UnixMicro()
	return next.head.Created <= limit && s.index.Newest <= limit
}

// onlyBefore lists tables whose newest version is described in full only in segments before seq. l.mu is held.
func (l *Log) onlyBefore(seq uint64) (ids []uint32) {
	for id, k := range l.mu.tables {
		if at, _ := split(k.address); at < seq {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// retire removes a segment's file, or keeps it to be written again when nobody reads it.
func (l *Log) retire(s *segment) error {
	l.mu.Lock()
	keep := s.refs == 0 && len(l.mu.spares) == 0 && s.size >= l.opt.SegmentSize/2
	l.mu.Unlock()
	if !keep {
		return errors.Join(l.opt.FS.Remove(s.name), l.opt.FS.SyncDir(l.opt.Dir))
	}
	name := filepath.Join(l.opt.Dir, spareName+segName(s.seq))
	if err := errors.Join(l.opt.FS.Rename(s.name, name), l.opt.FS.SyncDir(l.opt.Dir)); err != nil {
		return err
	}
	l.mu.Lock()
	l.mu.spares = append(l.mu.spares, spare{name: name, size: s.size})
	l.mu.Unlock()
	return nil
}

// Aged returns when the oldest event kept was committed; zero when there is none.
func (l *Log) Aged() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.mu.segs {
		if s.index.timed {
			return time.UnixMicro(s.index.Oldest).UTC()
		}
	}
	return time.Time{}
}
