package disklog

import (
	"context"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Bytes is how much the log's segments take on the disk, what was written ahead included.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sizeFrom(0)
}

// Behind returns how many events lie between o and the end, and about how many bytes of the log: by the
// sparse index, not by reading. The bytes of a transaction's chunks count by the share of its events that is left,
// from its commit on. Never 0 bytes where there are events.
func (l *Log) Behind(o pipeline.Offset) (events uint64, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.mu.synced.Next
	if o >= next {
		return 0, 0
	}
	o = max(o, l.mu.segs[0].base())
	events = uint64(next - o)
	for _, g := range l.meta.Gaps {
		if from, to := max(o, g.From), min(next, g.To); from < to {
			events -= uint64(to - from)
		}
	}
	if events == 0 {
		return 0, 0
	}
	for _, s := range l.mu.segs {
		if s.index.Next > o {
			bytes += s.index.weightFrom(o)
		}
	}
	return events, max(1, bytes)
}

// Depth implements pipeline.Keeper.
func (l *Log) Depth(o pipeline.Offset) pipeline.Depth {
	_, behind := l.Behind(o)
	now := l.opt.Now().UnixMicro()
	l.mu.Lock()
	defer l.mu.Unlock()
	segs := l.mu.segs
	d := pipeline.Depth{Behind: behind, Written: l.mu.freed, Headroom: pipeline.Unknown, ToAge: pipeline.Unknown,
		Memory: o >= l.mu.ring.lowBase, Gone: o < segs[0].base()}
	at := 0
	for i, s := range segs {
		d.Written += s.end - firstBlock
		if s.base() <= o {
			at = i
		}
	}
	last := segs[len(segs)-1]
	if bound := l.sizeBound(); bound > 0 {
		next := max(1, l.nextSize(last.size))
		d.Headroom = 0
		if spare := bound - l.sizeFrom(at); spare >= 0 && !d.Gone {
			d.Headroom = max(0, last.size-last.end) + spare/next*next
		}
	}
	if age := l.mu.retention.Age; age > 0 && at < len(segs)-1 {
		from := max(segs[at].index.Newest, segs[at+1].head.Created)
		d.ToAge = max(0, age-time.Duration(now-from)*time.Microsecond)
	}
	return d
}

// CommittedAt returns when the transaction of the first event at or above o was committed; zero when there is
// no such event. It reads at most one batch, from memory when o is near the end.
func (l *Log) CommittedAt(ctx context.Context, o pipeline.Offset) (time.Time, error) {
	oldest, next := l.Bounds()
	if o >= next {
		return time.Time{}, nil
	}
	r, err := l.Read(max(o, oldest))
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = r.Close() }() // a reader's end has nothing to lose
	for {
		b, err := r.Next(ctx)
		if err != nil {
			return time.Time{}, err
		}
		i := max(0, int(int64(o)-int64(b.Base)))
		if i < len(b.Events) {
			at := time.UnixMicro(b.Txs[b.Events[i].Tx].Time).UTC()
			b.Release()
			return at, nil
		}
		end := b.Next()
		b.Release()
		if end >= next {
			return time.Time{}, nil
		}
	}
}

// CommittedSince is no later than the commit of the event at o: the oldest commit in the first segment that
// holds one at or after o. Nothing is read for it. Zero when there is none.
func (l *Log) CommittedSince(o pipeline.Offset) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.mu.segs {
		if s.index.Next > o && s.index.timed {
			return time.UnixMicro(s.index.Oldest).UTC()
		}
	}
	return time.Time{}
}
