package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// ledger is a sink that takes whole transactions, as Kafka's does: what is committed stays and is known, what is not is lost
// with trouble or a crash.
type ledger struct {
	mu      sync.Mutex
	rand    *rand.Rand
	trouble bool
	lost    bool // what was open, and nobody was told
	open    []pipeline.Offset
	commits [][]pipeline.Offset
	done    pipeline.Offset // committed up to it
	aside   []pipeline.Offset
	wrong   string
}

func (l *ledger) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	time.Sleep(time.Duration(l.dice(30)) * time.Millisecond)
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if d.Aside && (l.lost || len(l.open) > 0) {
		out := make(pipeline.Outcomes, d.Events)
		for i := range out {
			out[i] = pipeline.Outcome{Class: pipeline.Defer, Delay: time.Second}
		}
		return out, nil
	}
	if l.lost {
		l.lost = false
		return nil, &pipeline.DeliveryError{Class: pipeline.Undone}
	}
	if l.trouble && l.rand.IntN(10) == 0 {
		l.lost, l.open = len(l.open) > 0, nil
		return nil, &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "away"}
	}
	var out pipeline.Outcomes
	part := d.Events
	if l.trouble && l.rand.IntN(10) == 0 { // the rest fails
		part = l.rand.IntN(d.Events)
		out = make(pipeline.Outcomes, d.Events)
		for i := part; i < d.Events; i++ {
			out[i] = pipeline.Outcome{Class: pipeline.Defer, Delay: time.Millisecond}
		}
	}
	_ = d.Each(func(i int, b *pipeline.Batch, ev int, _ pipeline.Op) error {
		o := b.Offset(ev)
		switch {
		case i >= part || slices.Contains(l.aside, o) || l.has(o):
		case d.Aside:
			if n := len(l.aside); n > 0 && o <= l.aside[n-1] || b.Events[ev].Hash != parkedHash {
				l.wrong = fmt.Sprintf("%d goes aside behind %v", o, l.aside)
			}
			l.aside = append(l.aside, o)
		case o <= l.done:
			l.wrong = fmt.Sprintf("%d comes when all up to %d is committed", o, l.done)
		default:
			if n := len(l.open); n > 0 && o <= l.open[n-1] {
				l.wrong = fmt.Sprintf("%d comes behind %d", o, l.open[n-1])
			}
			l.open = append(l.open, o)
		}
		return nil
	})
	if d.Ends && !d.Aside && part == d.Events {
		l.commit()
	}
	return out, nil
}

func (l *ledger) commit() {
	if n := len(l.open); n > 0 {
		l.commits, l.done = append(l.commits, l.open), l.open[n-1]
	}
	l.open = nil
}

// has reports whether the event is committed.
func (l *ledger) has(o pipeline.Offset) bool {
	return slices.ContainsFunc(l.commits, func(group []pipeline.Offset) bool { return slices.Contains(group, o) })
}

func (l *ledger) dice(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rand.IntN(n)
}

func (l *ledger) Commit(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost || l.trouble && l.rand.IntN(4) == 0 {
		l.lost, l.open = false, nil
		return errors.New("it is not known")
	}
	l.commit()
	return nil
}

func (l *ledger) Abort(context.Context) { l.crash() }

// Resume begins anew: a producer that begins has nothing open.
func (l *ledger) Resume(pipeline.Cursor) { l.crash() }

func (l *ledger) crash() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open, l.lost = nil, false
}

func (l *ledger) Close() error { return nil }

func (l *ledger) upTo() pipeline.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

var otherTable = pipetest.FilesTable("others")

// history appends transactions of few and of many events, in one batch or in chunks, of which some are of a table that is not
// wanted; it returns which are, by transaction.
func history(t *testing.T, l *pipetest.MemoryLog, r *rand.Rand) (wanted [][]pipeline.Offset) {
	t.Helper()
	next := first
	fill := func(b *pipeline.Batch, tx []pipeline.Offset, n int, drop bool) []pipeline.Offset {
		for range n {
			at := table
			if drop || r.IntN(4) == 0 {
				at = otherTable
			} else {
				tx = append(tx, next)
			}
			ti, err := b.TableIndex(at)
			if err != nil {
				t.Fatal(err)
			}
			key := uint64(r.IntN(5))
			b.Events = append(b.Events, pipeline.Event{Op: pipeline.OpUpdate, Table: ti, Tx: uint32(len(b.Txs) - 1), Hash: key,
				Key: b.PutString(fmt.Sprintf("key-%d", key)), Before: pipeline.Nowhere, After: pipeline.Nowhere})
			next++
		}
		return tx
	}
	begin := func(b *pipeline.Batch) {
		b.Txs = append(b.Txs, pipeline.Tx{ID: b.PutString("7"), Position: b.PutString("0/7"), Time: time.Now().UnixMicro(), First: uint32(len(b.Events)), Ends: true})
	}
	put := func(b *pipeline.Batch) {
		if _, err := l.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		b := pipeline.NewBatch()
		b.Read = time.Now()
		if r.IntN(3) > 0 {
			for range 1 + r.IntN(6) {
				begin(b)
				wanted = append(wanted, fill(b, nil, 1+r.IntN(5), false))
			}
			put(b)
			continue
		}
		open := fmt.Sprint("open-", i)
		var tx []pipeline.Offset
		chunks := 1 + r.IntN(6)
		for c := range chunks {
			b.Kind, b.Open = pipeline.BatchChunk, open
			begin(b)
			b.Txs[0].Ends = false
			tx = fill(b, tx, 1+r.IntN(30), c > chunks/2)
			put(b)
			b = pipeline.NewBatch()
		}
		b.Kind, b.Open = pipeline.BatchCommit, open
		begin(b)
		put(b)
		wanted = append(wanted, tx)
	}
	return slices.DeleteFunc(wanted, func(tx []pipeline.Offset) bool { return len(tx) == 0 })
}

// parkedHash is of a key that was parked before transactions were to be whole.
const parkedHash = 2

// Through trouble, pauses, crashes and a redrive each transaction of the source is committed whole, once, in order.
func TestWholeTransactions(t *testing.T) {
	t.Parallel()
	program, err := filter.Compile(filter.Options{Tables: []string{"public.files"}, Form: pipetest.PGForm})
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			l, m := pipetest.NewMemoryLog("log", first), newMemory()
			sink := &ledger{rand: rand.New(rand.NewPCG(seed, 8)), trouble: seed%3 > 0}
			c := config(l, m, sink)
			c.Filter, c.Whole, c.Order, c.Batch.Events = program, true, OrderSource, 1+r.IntN(12)
			if seed%2 > 0 {
				m.putParks([]Park{{Subscription: "sub", Log: l.ID(), Space: table.KeySpace, Key: []byte("key-2"), Hash: parkedHash, From: first}})
			}
			sub := start(t, c)
			wanted := history(t, l, r)
			redrive := func() {
				if _, err := sub.Redrive(context.Background(), nil); err != nil {
					t.Fatal(err)
				}
			}
			last := wanted[len(wanted)-1]
			for deadline := time.Now().Add(time.Hour); sub.Status().Low <= last[len(last)-1] || m.parked() > 0; {
				time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
				if time.Now().After(deadline) {
					t.Fatalf("seed %d: committed up to %d of %d: %+v", seed, sink.upTo(), last[len(last)-1], sub.Status())
				}
				if sub.Status().Low > last[len(last)-1] {
					redrive()
				}
				switch r.IntN(12) {
				case 0: // killed
					saved := m.killed()
					sub.end()
					sink.crash()
					*m = memory{cursors: saved.cursors, dead: saved.dead, parks: saved.parks, held: saved.held, tables: saved.tables, paused: saved.paused, jobs: saved.jobs}
					sub = start(t, c)
				case 1:
					_ = sub.Pause(context.Background(), "a test")
					_ = sub.Resume(context.Background())
				case 2:
					redrive()
				}
			}
			sub.end()
			check(t, seed, sink, wanted, m)
		})
	}
}

func check(t *testing.T, seed uint64, sink *ledger, wanted [][]pipeline.Offset, m *memory) {
	t.Helper()
	if sink.wrong != "" {
		t.Fatalf("seed %d: %s", seed, sink.wrong)
	}
	for i := range wanted { // what went aside is of none
		wanted[i] = slices.DeleteFunc(wanted[i], func(o pipeline.Offset) bool { return slices.Contains(sink.aside, o) })
	}
	wanted = slices.DeleteFunc(wanted, func(tx []pipeline.Offset) bool { return len(tx) == 0 })
	for _, group := range sink.commits {
		for len(group) > 0 {
			n := min(len(wanted[0]), len(group))
			if !slices.Equal(group[:n], wanted[0]) {
				t.Fatalf("seed %d: a commit goes on with %v, the transaction is %v", seed, group, wanted[0])
			}
			group, wanted = group[n:], wanted[1:]
		}
	}
	if len(wanted) > 0 || m.cursor("sub").Low <= sink.done {
		t.Fatalf("seed %d: the cursor is %+v, committed is %d, missing %v", seed, m.cursor("sub"), sink.done, wanted)
	}
}

// halved takes the first part of a transaction, and the next ones not while it is away.
type halved struct {
	ledger
	away   bool
	starts int
}

func (h *halved) Deliver(ctx context.Context, d *pipeline.Delivery) (pipeline.Outcomes, error) {
	h.mu.Lock()
	if len(h.open) == 0 && !h.lost {
		h.starts++
	} else if h.away {
		h.lost, h.open = !h.lost, nil
		err := &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "a partition has no leader"}
		if !h.lost {
			err.Class = pipeline.Undone
		}
		h.mu.Unlock()
		return nil, err
	}
	h.mu.Unlock()
	return h.ledger.Deliver(ctx, d)
}

// The start of a large transaction whose rest cannot be taken is brought less and less often; then all goes at once.
func TestWholeBacksOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, m := pipetest.NewMemoryLog("log", first), newMemory()
		sink := &halved{ledger: ledger{rand: rand.New(rand.NewPCG(1, 8))}, away: true}
		c := config(l, m, sink)
		c.Whole, c.Order, c.Batch.Events = true, OrderSource, 2
		sub := start(t, c)
		appendTo(t, l, keys(make([]uint64, 100)...)...)
		time.Sleep(time.Hour)
		sink.mu.Lock()
		starts := sink.starts
		sink.away = false
		sink.mu.Unlock()
		if starts < 10 || starts > 80 {
			t.Errorf("begun %d times in an hour", starts)
		}
		time.Sleep(4 * time.Minute)
		if st := sub.Status(); st.Low != first+100 || st.State != StateRunning {
			t.Errorf("%+v", st)
		}
		sub.end()
	})
}
