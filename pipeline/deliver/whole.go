package deliver

import (
	"context"
	"errors"
	"sort"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/flow"
)

// staged is what a session knows of transactions that its sink takes as a whole (Config.Whole): Deliveries end with
// one where they can, else the sink keeps what it took until the rest came. Until then nothing of that is done for the
// cursor: who begins anew begins with the first of its events.
type staged struct {
	// from is the first event, and at the last one, that the sink has taken and not committed; 0: none.
	from, at pipeline.Offset
	// closed: what was read below it is of transactions that were read to their ends.
	closed    pipeline.Offset
	busy      bool // a Commit is under way
	committed chan error
}

// errUndone ends a session whose sink has lost what it had not committed: the next one brings it again.
var errUndone = errors.New("a transaction was taken back")

// commitTime bounds a Commit, abortTime an Abort.
const (
	commitTime = 30 * time.Second
	abortTime  = 5 * time.Second
)

// ends reports whether no event of its transaction follows d's last one, as far as that is known.
func (d *delivery) ends() bool {
	if len(d.Runs) == 0 {
		return false
	}
	it, ev := d.items[len(d.items)-1], d.Runs[len(d.Runs)-1].To-1
	i := sort.Search(len(it.runs), func(i int) bool { return it.runs[i].To > ev })
	if i < len(it.runs) && ev+1 < it.runs[i].To {
		return it.batch.Events[ev+1].Tx != it.batch.Events[ev].Tx
	}
	if i+1 < len(it.runs) {
		return it.batch.Events[it.runs[i+1].From].Tx != it.batch.Events[ev].Tx
	}
	return !it.part
}

// rounds reports whether d, which is full, may have n bytes more because a transaction ends soon, perhaps.
func (s *session) rounds(d *delivery, n int) bool {
	return s.cfg.Whole && d.Events < 2*s.most() && d.Bytes+n <= 2*s.maxBytes && !d.ends()
}

// partial reports whether the last transaction in the batch goes on in the next one.
func partial(b *pipeline.Batch) bool {
	n := len(b.Txs)
	return n > 0 && !b.Txs[n-1].Ends
}

// returned notes what the sink has now of a Delivery that it took.
func (w *staged) returned(d *delivery) {
	if d.Aside {
		return
	}
	last := d.Runs[len(d.Runs)-1]
	w.at = last.Batch.Offset(int(last.To - 1))
	end := pipeline.OK
	if d.outcomes != nil {
		end = d.outcomes[d.Events-1].Class
	}
	switch {
	case d.Ends && (end == pipeline.OK || end == pipeline.Fatal):
		w.from = 0
	case w.from == 0:
		w.from = d.Runs[0].Batch.Offset(int(d.Runs[0].From))
	}
}

// between reports whether what a pass has may go: of whole transactions when none is at the sink or on its way there, as
// those keep one order with all else, and what goes aside would wait for their ends, which would wait for it.
func (s *session) between() bool {
	if !s.cfg.Whole {
		return true
	}
	for _, k := range s.held.keys {
		if !k.aside {
			return false
		}
	}
	return s.staged.from == 0 && !s.staged.busy && s.inflight == 0
}

// passes reports whether the stream waits for the last round of a pass.
func (s *session) passes() bool { return s.cfg.Whole && s.pass != nil && s.pass.handover > 0 }

// low is the offset below which all is done, committed too.
func (s *session) low() pipeline.Offset {
	low := s.front.Low()
	if w := &s.staged; w.from > 0 {
		low = min(low, w.from)
	}
	return low
}

// pending are the offsets of [low, high) that are not done, or not committed.
func (s *session) pending(low, high pipeline.Offset) []pipeline.OffsetRange {
	var all []pipeline.OffsetRange
	if front := s.front.Low(); low < front {
		all = clip(s.start.Pending, low, min(front, s.start.High))
		if from := max(low, s.start.High); from < front {
			all = append(all, pipeline.OffsetRange{From: from, To: front})
		}
	}
	return append(all, s.front.Pending(high, maxPending)...)
}

// commitRest has the sink commit a transaction whose last events the filter has taken away: no Delivery will do.
func (s *session) commitRest(ctx context.Context) {
	w := &s.staged
	if w.from == 0 || w.busy || s.inflight > 0 || s.open > 0 || !s.stream.empty() || w.closed <= w.at {
		return
	}
	w.busy = true
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, commitTime)
		defer cancel()
		w.committed <- s.cfg.Sink.(pipeline.Committer).Commit(ctx)
	})
}

// isCommitted takes the sink's answer.
func (s *session) isCommitted(err error) {
	s.staged.busy = false
	if err != nil {
		if s.end == nil {
			s.end = errUndone
		}
		return
	}
	s.staged.from, s.save.dirty = 0, true
	s.outage.Done(s.number, 0, flow.Worked, 0, "", time.Now())
}

// giveUp has the sink drop what it had not committed, so that nobody waits for it.
func (s *session) giveUp() {
	if s.staged.from == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), abortTime)
	defer cancel()
	s.cfg.Sink.(pipeline.Committer).Abort(ctx)
}
