package views

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/cmd/leat/internal/scans"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/selection"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/pull"
)

const (
	fetchEvents, maxFetchEvents = 1000, 10_000
	fetchBytes, maxFetchBytes   = 1 << 20, 8 << 20
	maxFetchLists               = 100
	// fetchPiece events are encoded at once: what encoders share together.
	fetchPiece = 128
	// maxFetchSeen events are looked at for one answer, which may be empty then: next says where to go on.
	maxFetchSeen = 500_000
	// fetchReaders read logs at once for all who fetch.
	fetchReaders = 2
	// fetchCache bytes, at most, are kept for all who fetch: of batches, of these encoded, and of answers, each.
	fetchCache = 8 << 20
	// fetchKeep is how long answers stay after the last one was made.
	fetchKeep = 2 * time.Second
)

// Fetches are those under way and their newest answers, so that equal ones are answered by one. Safe for concurrent
// use.
type Fetches struct {
	o     FetchOptions
	scans *scans.Scans
	share *encode.Share
	most  int // bytes of answers that are kept

	mu    sync.Mutex
	same  map[string]*sameFetch
	ways  map[string]*way // by subscription
	kept  []*sameFetch    // those answered, the oldest first
	bytes int             // of kept
	idle  *time.Timer     // ends with all that is kept
}

type sameFetch struct {
	key   string
	sub   *config.Subscription // a changed one is another
	ready chan struct{}
	found pull.Fetched
	err   error
}

// way is what all fetches of a subscription have in common: what was encoded for one is there for the others.
type way struct {
	sub     *config.Subscription
	program *filter.Program
	enc     *encode.Encoder
	size    atomic.Int64 // bytes of the last answer
}

// FetchOptions of an installation.
type FetchOptions struct {
	// Memory of the process, bytes.
	Memory int64
	// PublicURL of the installation, without a slash at its end.
	PublicURL string
	// Form reads the rows of a table version.
	Form func(*schemas.Table) *cell.Form
	// Log of a source.
	Log func(source string) (pipeline.Log, error)
}

// NewFetches begins; Close ends it.
func NewFetches(o FetchOptions) *Fetches {
	most := int(min(fetchCache, o.Memory/64))
	all := &Fetches{o: o, scans: scans.New(int64(most), fetchReaders), share: encode.NewEagerShare(most), most: most, same: map[string]*sameFetch{}, ways: map[string]*way{}}
	all.idle = time.AfterFunc(fetchKeep, func() { all.forget(0) })
	return all
}

// Close lets go of what is kept.
func (all *Fetches) Close() {
	all.scans.Close()
	all.forget(0)
	all.idle.Stop()
}

// forget forgets the oldest answers, until at most so many bytes are kept.
func (all *Fetches) forget(most int) {
	all.mu.Lock()
	defer all.mu.Unlock()
	n := 0
	for ; all.bytes > most; n++ {
		x := all.kept[n]
		all.bytes -= len(x.found.Events)
		if all.same[x.key] == x {
			delete(all.same, x.key)
		}
	}
	all.kept = slices.Delete(all.kept, 0, n)
}

// Fetch answers a FetchRequest of who may read the subscription.
func (all *Fetches) Fetch(ctx context.Context, sub *config.Subscription, r *leatv1.FetchRequest) (pull.Fetched, error) {
	none := pull.Fetched{}
	if err := checkFetch(r); err != nil {
		return none, api.ConnectError(err)
	}
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return none, err
	}
	for {
		f, mine := all.join(string(key), sub)
		if mine {
			f.found, f.err = all.answer(ctx, sub, r)
			// What is there up to an end is always the same; where it ends by itself there is more soon.
			all.leave(f, f.err == nil && len(f.found.Events) > 0 && (r.To != 0 || !f.found.End))
		}
		select {
		case <-f.ready:
		case <-ctx.Done():
			return none, ctx.Err()
		}
		if !mine && ctx.Err() == nil && (errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)) {
			continue // who read for us went away
		}
		return f.found, api.ConnectError(Error(f.err))
	}
}

func (all *Fetches) join(key string, sub *config.Subscription) (x *sameFetch, mine bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if x = all.same[key]; x != nil && x.sub == sub {
		return x, false
	}
	x = &sameFetch{key: key, sub: sub, ready: make(chan struct{})}
	all.same[key] = x
	return x, true
}

// leave shows the answer to all who asked for it, and to those who will while it is kept.
func (all *Fetches) leave(x *sameFetch, keep bool) {
	close(x.ready)
	all.mu.Lock()
	if all.same[x.key] != x {
		keep = false // another one's by now
	} else if !keep {
		delete(all.same, x.key)
	}
	if keep {
		all.kept = append(all.kept, x)
		all.bytes += len(x.found.Events)
		all.idle.Reset(fetchKeep)
	}
	all.mu.Unlock()
	all.forget(all.most)
}

func checkFetch(r *leatv1.FetchRequest) error {
	switch {
	case r.To != 0 && r.To <= r.From:
		return api.Errorf(api.Invalid, "the stretch ends at %d, before or where it starts (%d)", r.To, r.From)
	case r.Limit > maxFetchEvents:
		return api.Errorf(api.Invalid, "limit %d: at most %d", r.Limit, maxFetchEvents)
	case r.MaxBytes > maxFetchBytes:
		return api.Errorf(api.Invalid, "max_bytes %d: at most %d", r.MaxBytes, maxFetchBytes)
	case len(r.Ranges) > maxFetchLists || len(r.Tables) > maxFetchLists:
		return api.Errorf(api.Invalid, "at most %d ranges and tables each", maxFetchLists)
	}
	return nil
}

// fetching is one answer in the making.
type fetching struct {
	only   *selection.Selector
	enc    *encode.Encoder
	g      encode.Gathered
	limit  int
	bytes  int
	n      int
	buf    []byte
	tables []*schemas.Table
	from   pipeline.Offset
	to     pipeline.Offset
	next   pipeline.Offset
	runs   []pipeline.Run
	seen   int  // events looked at
	enough bool // there may be more
}

// way returns the way of a subscription's fetches.
func (all *Fetches) way(name string, sub *config.Subscription) (*way, error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if w := all.ways[name]; w != nil && w.sub == sub {
		return w, nil
	}
	program, err := parts.Filter(sub, all.o.Form)
	if err != nil {
		return nil, err
	}
	o := parts.Encoding(sub, all.o.PublicURL, all.o.Form)
	o.Share = all.share
	w := &way{sub: sub, program: program, enc: encode.Proto(o)}
	all.ways[name] = w
	return w, nil
}

func (all *Fetches) answer(ctx context.Context, sub *config.Subscription, r *leatv1.FetchRequest) (found pull.Fetched, err error) {
	log, err := all.o.Log(sub.Source)
	if err != nil {
		return found, api.Errorf(api.Unavailable, "%w", err)
	}
	w, err := all.way(r.Subscription, sub)
	if err != nil {
		return found, err
	}
	oldest, end := log.Bounds()
	f := &fetching{enc: w.enc, limit: fetchEvents, bytes: fetchBytes, from: pipeline.Offset(r.From), to: end}
	if r.From == 0 {
		f.from = oldest
	}
	if r.To != 0 {
		f.to = pipeline.Offset(r.To)
	}
	if r.Limit > 0 {
		f.limit = int(r.Limit)
	}
	if r.MaxBytes > 0 {
		f.bytes = int(r.MaxBytes)
	}
	switch {
	case f.from < oldest:
		return found, api.Errorf(api.Gone, "offset %d is older than the log keeps: history is there from %d on", f.from, oldest)
	case f.from > end || f.to > end:
		return found, api.Errorf(api.Invalid, "[%d, %d) lies beyond the end of the log (%d)", f.from, f.to, end)
	}
	if f.only, err = all.scope(log, r.Subscription, w.program, r); err != nil {
		return found, err
	}
	f.next = f.from
	f.buf = make([]byte, 0, w.size.Load()*9/8)
	defer f.g.Release()
	if err := all.scans.Each(ctx, log, f.from, f.to, f.take); err != nil {
		return found, err
	}
	if !f.enough {
		f.next = f.to
	}
	w.size.Store(int64(len(f.buf)))
	found = pull.Fetched{Source: sub.Source, Events: f.buf, Next: uint64(f.next), End: f.next >= f.to}
	for _, t := range f.tables {
		found.Tables = append(found.Tables, f.enc.Table(t))
	}
	return found, nil
}

func (all *Fetches) scope(log pipeline.Log, name string, program *filter.Program, r *leatv1.FetchRequest) (*selection.Selector, error) {
	scope := pipeline.Scope{Tables: r.Tables}
	if len(r.Ranges) > 0 {
		h, err := partition.NewHistory(log.Ranges())
		if err != nil {
			return nil, err
		}
		for _, id := range r.Ranges {
			life, err := rangeByID(h, log.Tables(), id)
			if err != nil {
				return nil, err
			}
			scope.Ranges = append(scope.Ranges, pipeline.KeyInterval{Space: life.Space, Start: life.Start, End: life.End})
		}
	}
	c, err := selection.Compile(scope, all.o.Form)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "%w", err)
	}
	return selection.New(name, program, c), nil
}

// rangeByID finds a range, open or closed. Range 0 is that of a space that was never split: the only one's.
func rangeByID(h *partition.History, tables []*schemas.Table, id uint64) (found partition.Life, err error) {
	spaces := map[string]bool{}
	for _, space := range h.Last().Spaces() {
		spaces[space] = true
	}
	for _, t := range tables {
		spaces[t.KeySpace] = true
	}
	n := 0
	for space := range spaces {
		for _, l := range h.Lineage(space) {
			if l.ID == id {
				found = l
				n++
			}
		}
	}
	switch n {
	case 0:
		return found, api.Errorf(api.Invalid, "there is no range %d", id)
	case 1:
		return found, nil
	}
	return found, api.Errorf(api.Invalid, "range %d is one of %d key spaces: name tables instead", id, n)
}

// take adds what is meant of a batch; false: that is enough.
func (f *fetching) take(b *pipeline.Batch) (bool, error) {
	from, to := int(max(f.from, b.Base)-b.Base), int(min(f.to, b.Next())-b.Base)
	f.runs = f.only.Select(b, from, to, f.runs[:0])
	for _, r := range f.runs {
		for r.From < r.To {
			if f.n == f.limit || f.n > 0 && len(f.buf) >= f.bytes {
				f.next, f.enough = b.Offset(int(r.From)), true
				return false, nil
			}
			piece := r
			piece.To = min(r.To, r.From+uint32(f.limit-f.n), (r.From/fetchPiece+1)*fetchPiece)
			n, err := f.add(piece)
			if err != nil {
				return false, err
			}
			r.From += uint32(n)
		}
	}
	f.next = min(f.to, b.Next())
	f.seen += to - from
	f.enough = f.next < f.to && (f.n == f.limit || len(f.buf) >= f.bytes || f.seen >= maxFetchSeen)
	return !f.enough, nil
}

// add adds the events of a run while there is room, at least one, and returns how many.
func (f *fetching) add(r pipeline.Run) (n int, err error) {
	f.enc.Gather(&pipeline.Delivery{Runs: []pipeline.Run{r}}, &f.g)
	size := uint32(0)
	for n < len(f.g.Ends) && (f.n == 0 || len(f.buf)+int(size) < f.bytes) {
		size = f.g.Ends[n]
		f.table(r.Batch.TableOf(int(r.From) + n))
		f.n++
		n++
	}
	if len(f.g.Errs) > 0 && f.g.Errs[0].Event < n {
		bad := f.g.Errs[0]
		return 0, fmt.Errorf("event %d: %w", r.Batch.Offset(int(r.From)+bad.Event), bad)
	}
	f.buf = f.g.AppendRange(f.buf, 0, int(size))
	return n, nil
}

func (f *fetching) table(t *schemas.Table) {
	for _, have := range f.tables {
		if have == t {
			return
		}
	}
	if t != nil {
		f.tables = append(f.tables, t)
	}
}
