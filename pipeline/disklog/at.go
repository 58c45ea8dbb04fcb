package disklog

import (
	"context"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
)

// At returns the first offset whose transaction committed at or after t. Commit times may go back; the
// running maximum decides, so the offset is that of the first transaction that is not older than t.
func (l *Log) At(ctx context.Context, t time.Time) (pipeline.Offset, error) {
	want := t.UnixMicro()
	l.mu.Lock()
	next := l.mu.synced.Next
	var at place
	for _, s := range l.mu.segs {
		if s.index.timed && s.index.Newest >= want {
			at.address = address(s.seq, s.index.seekTime(want))
			break
		}
	}
	l.mu.Unlock()
	if at.address == 0 {
		return next, nil
	}
	r := &reader{l: l, at: at}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		r.leave()
	}()
	l.mu.Lock()
	err := r.enter()
	l.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("find %s in log: %w", t.UTC().Format(time.RFC3339), err)
	}
	o, found, err := r.findTime(ctx, want)
	if err != nil {
		return 0, fmt.Errorf("find %s in log: %w", t.UTC().Format(time.RFC3339), err)
	}
	if !found {
		return next, nil
	}
	return o, nil
}

// findTime scans the segment that r has entered for the first transaction at or after want.
func (r *reader) findTime(ctx context.Context, want int64) (pipeline.Offset, bool, error) {
	r.l.mu.Lock()
	limit := r.seg.end
	r.l.mu.Unlock()
	_, off := split(r.at.address)
	b := new(pipeline.Batch)
	for off < limit {
		if err := ctx.Err(); err != nil {
			return 0, false, err
		}
		h, err := r.in.header(off, limit)
		if err != nil {
			return 0, false, r.damage(&r.in, off, err)
		}
		if h.Events > 0 && h.Time >= want && h.Kind.Batch() && h.Kind != record.KindChunk {
			if h.Kind == record.KindCommit {
				return h.Base, true, nil
			}
			h, block, err := r.in.block(off, limit)
			if err == nil {
				_, err = record.Decode(block, &h, b, r.l.resolver(r.seg, &r.in), nil)
			}
			if err != nil {
				return 0, false, r.damage(&r.in, off, err)
			}
			for i := range b.Txs {
				if b.Txs[i].Time >= want && int(b.Txs[i].First) < len(b.Events) {
					return h.Base + pipeline.Offset(b.Txs[i].First), true, nil
				}
			}
		}
		off += int64(h.Size())
	}
	return 0, false, nil
}
