package views

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/cmd/leat/internal/scans"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
)

const (
	fetchEvents, maxFetchEvents = 1000, 10_000
	fetchBytes, maxFetchBytes   = 1 << 20, 8 << 20
	maxFetchLists               = 100
	// maxFetchSeen events are looked at for one answer, which may be empty then: next says where to go on.
	maxFetchSeen = 500_000
	// fetchReaders read logs at once for all who fetch.
	fetchReaders = 2
	// fetchCache of batches for all who fetch, at most.
	fetchCache = 16 << 20
)

// Fetches are those under way, so that equal ones are answered by one. Safe for concurrent use.
type Fetches struct {
	o     FetchOptions
	scans *scans.Scans
	mu    sync.Mutex
	same  map[string]*sameFetch
}

type sameFetch struct {
	sub   *config.Subscription // a changed one is another
	ready chan struct{}
	resp  *leatv1.FetchResponse
	err   error
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
	return &Fetches{o: o, scans: scans.New(min(fetchCache, o.Memory/16), fetchReaders), same: map[string]*sameFetch{}}
}

// Close lets go of what is kept.
func (all *Fetches) Close() { all.scans.Close() }

// Fetch answers a FetchRequest of who may read the subscription.
func (all *Fetches) Fetch(ctx context.Context, sub *config.Subscription, r *leatv1.FetchRequest) (*leatv1.FetchResponse, error) {
	if err := checkFetch(r); err != nil {
		return nil, api.ConnectError(err)
	}
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return nil, err
	}
	for {
		f, mine := all.join(string(key), sub)
		if mine {
			f.resp, f.err = all.answer(ctx, sub, r)
			all.leave(string(key), f)
		}
		select {
		case <-f.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !mine && ctx.Err() == nil && (errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)) {
			continue // who read for us went away
		}
		return f.resp, api.ConnectError(Error(f.err))
	}
}

func (all *Fetches) join(key string, sub *config.Subscription) (x *sameFetch, mine bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if x = all.same[key]; x != nil && x.sub == sub {
		return x, false
	}
	x = &sameFetch{sub: sub, ready: make(chan struct{})}
	all.same[key] = x
	return x, true
}

func (all *Fetches) leave(key string, x *sameFetch) {
	all.mu.Lock()
	if all.same[key] == x {
		delete(all.same, key)
	}
	all.mu.Unlock()
	close(x.ready)
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
	only   *deliver.Selector
	enc    *encode.Encoder
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

func (all *Fetches) answer(ctx context.Context, sub *config.Subscription, r *leatv1.FetchRequest) (*leatv1.FetchResponse, error) {
	log, err := all.o.Log(sub.Source)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "%w", err)
	}
	oldest, end := log.Bounds()
	f := &fetching{limit: fetchEvents, bytes: fetchBytes, from: pipeline.Offset(r.From), to: end}
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
		return nil, api.Errorf(api.Gone, "offset %d is older than the log keeps: history is there from %d on", f.from, oldest)
	case f.from > end || f.to > end:
		return nil, api.Errorf(api.Invalid, "[%d, %d) lies beyond the end of the log (%d)", f.from, f.to, end)
	}
	program, err := parts.Filter(sub, all.o.Form)
	if err != nil {
		return nil, err
	}
	if f.only, err = all.scope(log, program, r); err != nil {
		return nil, err
	}
	f.enc = encode.Proto(parts.Encoding(sub, all.o.PublicURL, all.o.Form))
	f.next = f.from
	if err := all.scans.Each(ctx, log, f.from, f.to, f.take); err != nil {
		return nil, err
	}
	if !f.enough {
		f.next = f.to
	}
	return f.response(sub.Source)
}

func (all *Fetches) scope(log pipeline.Log, program *filter.Program, r *leatv1.FetchRequest) (*deliver.Selector, error) {
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
	c, err := deliver.CompileScope(scope, all.o.Form)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "%w", err)
	}
	return deliver.NewSelector(program, c), nil
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
		for i := int(r.From); i < int(r.To); i++ {
			if f.n == f.limit || f.n > 0 && len(f.buf) >= f.bytes {
				f.next, f.enough = b.Offset(i), true
				return false, nil
			}
			var err error
			if f.buf, err = f.enc.Append(f.buf, b, i, r.As); err != nil {
				return false, fmt.Errorf("event %d: %w", b.Offset(i), err)
			}
			f.n++
			f.table(b.TableOf(i))
		}
	}
	f.next = min(f.to, b.Next())
	f.seen += to - from
	f.enough = f.next < f.to && (f.n == f.limit || len(f.buf) >= f.bytes || f.seen >= maxFetchSeen)
	return !f.enough, nil
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

func (f *fetching) response(source string) (*leatv1.FetchResponse, error) {
	events := &leatv1.Events{Source: source}
	if err := proto.Unmarshal(f.buf, events); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	events.Source = source
	for _, t := range f.tables {
		events.Tables = append(events.Tables, f.enc.Table(t))
	}
	return &leatv1.FetchResponse{Events: events, Next: uint64(f.next), End: f.next >= f.to}, nil
}
