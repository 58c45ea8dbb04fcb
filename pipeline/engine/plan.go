package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/pipeline/selection"
)

// planned is a plan with what it was made for.
type planned struct {
	ReplayPlan
	job    pipeline.Job // without ID, Created
	runner *runner
	sub    *deliver.Subscription
	log    pipeline.Log
	scope  *selection.Scope
}

// plan checks a request, finds its window and counts what is in it.
func (e *Engine) plan(ctx context.Context, r ReplayRequest) (*planned, error) {
	p, err := e.planFor(r)
	if err != nil {
		return nil, err
	}
	if err := p.narrow(r, e.cfg); err != nil {
		return nil, err
	}
	if err := p.window(ctx, r); err != nil {
		return nil, err
	}
	if err := p.count(ctx); err != nil {
		return nil, err
	}
	j := &p.job
	j.From, j.To, j.At, j.High = p.From, p.To, p.From, p.From
	j.Total, j.Bytes = p.Events, p.Bytes
	return p, nil
}

func (e *Engine) planFor(r ReplayRequest) (*planned, error) {
	if _, ok := e.cfg.Store.(JobStore); !ok {
		return nil, refuse("this installation keeps no jobs")
	}
	switch r.Kind {
	case pipeline.JobAside, pipeline.JobFenced, pipeline.JobRewind:
	default:
		return nil, refuse("a replay is aside, fenced or rewind, not %q", r.Kind)
	}
	for _, u := range e.all() {
		run := u.find(r.Subscription)
		if run == nil {
			continue
		}
		log, sub := u.currentLog(), run.current()
		if log == nil || sub == nil {
			return nil, fmt.Errorf("subscription %q is being started: %w", r.Subscription, ErrUnknown)
		}
		return &planned{runner: run, sub: sub, log: log, job: pipeline.Job{Subscription: r.Subscription, Source: u.spec.Name, Log: log.ID(),
			Kind: r.Kind, Scope: r.Scope, State: pipeline.JobRunning, Owner: r.Owner}}, nil
	}
	return nil, refuse("no subscription %q runs here", r.Subscription)
}

// narrow checks and compiles the scope.
func (p *planned) narrow(r ReplayRequest, cfg Config) error {
	s := &p.job.Scope
	s.Keys, s.Ranges = slices.Clone(s.Keys), slices.Clone(s.Ranges)
	for _, id := range r.RangeIDs {
		life, err := lifeOf(p.log, id)
		if err != nil {
			return err
		}
		s.Ranges = append(s.Ranges, pipeline.KeyInterval{Space: life.Space, Start: life.Start, End: life.End})
	}
	var err error
	if p.scope, err = selection.Compile(*s, cfg.Form); err != nil {
		return refuse("%v", err)
	}
	spaces := map[string]bool{}
	for _, t := range p.log.Tables() {
		if p.scope.HasTable(t) {
			spaces[t.KeySpace] = true
		}
	}
	if len(s.Tables) > 0 && len(spaces) == 0 {
		return refuse("source %q has no table that matches %v", p.job.Source, s.Tables)
	}
	for _, k := range s.Keys {
		if !spaces[k.Space] {
			return refuse("source %q has no key space %q among the tables asked for", p.job.Source, k.Space)
		}
	}
	for _, k := range s.Ranges {
		if !spaces[k.Space] {
			return refuse("source %q has no key space %q among the tables asked for", p.job.Source, k.Space)
		}
	}
	return nil
}

// lifeOf finds a range, open or closed.
func lifeOf(log pipeline.Log, id RangeID) (partition.Life, error) {
	h, err := partition.NewHistory(log.Ranges())
	if err != nil {
		return partition.Life{}, err
	}
	spaces := h.Last().Spaces()
	for _, t := range log.Tables() {
		if !slices.Contains(spaces, t.KeySpace) {
			spaces = append(spaces, t.KeySpace)
		}
	}
	var found []partition.Life
	for _, space := range spaces {
		if id.Space != "" && space != id.Space {
			continue
		}
		for _, l := range h.Lineage(space) {
			if l.ID == id.ID {
				found = append(found, l)
			}
		}
	}
	switch {
	case len(found) == 0 && id.Space != "":
		return partition.Life{}, refuse("key space %q has no range %d: `leat ranges lineage SOURCE` lists them", id.Space, id.ID)
	case len(found) == 0:
		return partition.Life{}, refuse("there is no range %d: `leat ranges lineage SOURCE` lists them", id.ID)
	case len(found) > 1:
		return partition.Life{}, refuse("range %d is one of several key spaces: name the space too", id.ID)
	}
	return found[0], nil
}

// window turns the points into offsets and checks them.
func (p *planned) window(ctx context.Context, r ReplayRequest) error {
	oldest, next := p.log.Bounds()
	if r.From == (Point{}) {
		return refuse("say from where: an offset, a time or a position in the source")
	}
	var err error
	if p.From, err = p.locate(ctx, r.From); err != nil {
		return err
	}
	if p.From < oldest {
		return p.tooOld(ctx, fmt.Sprintf("offset %d", p.From))
	}
	st := p.sub.Status()
	p.To = p.sub.Delivered()
	upTo := "it has been delivered all below offset %d so far"
	if r.Kind != pipeline.JobAside {
		if r.To != (Point{}) {
			return refuse("a %s goes on into live, so that each key ends with its newest version: it has no end; for a bounded window replay aside", r.Kind)
		}
		p.To, upTo = st.Read, "it has read up to offset %d so far"
	} else if r.To != (Point{}) {
		to, err := p.locate(ctx, r.To)
		if err != nil {
			return err
		}
		switch {
		case to > next || r.To.Time.After(time.Now()):
			return refuse("the window ends beyond the end of the log of source %q (offset %d)", p.job.Source, next)
		case to <= p.From:
			return refuse("the window ends (offset %d) where it starts (offset %d) or before", to, p.From)
		case to > p.To:
			p.note("the window ends at offset %d, not at %d: what lies between has not been delivered for the first time yet", p.To, to)
		}
		p.To = min(p.To, to)
	}
	switch {
	case p.From > next:
		return refuse("offset %d lies beyond the end of the log of source %q (offset %d)", p.From, p.job.Source, next)
	case p.From >= p.To:
		return refuse("there is nothing to deliver again to subscription %q from offset %d on: "+upTo, p.job.Subscription, p.From, p.To)
	}
	return nil
}

func (p *planned) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// tooOld says from where history is there.
func (p *planned) tooOld(ctx context.Context, what string) error {
	oldest, next := p.log.Bounds()
	if oldest == next {
		return refuse("%s is older than what the log of source %q keeps: it holds nothing", what, p.job.Source)
	}
	at, err := committed(ctx, p.log, oldest)
	if err != nil {
		return err
	}
	return refuse("%s is older than what the log of source %q keeps: history is there from offset %d (%s) on; what is older "+
		"cannot be replayed: %s", what, p.job.Source, oldest, at.Format(time.RFC3339Nano), pipeline.BringRows)
}

// locate turns a point into an offset.
func (p *planned) locate(ctx context.Context, at Point) (pipeline.Offset, error) {
	switch {
	case !at.Time.IsZero():
		o, err := p.log.At(ctx, at.Time)
		if err != nil {
			return 0, fmt.Errorf("find the offset of %s: %w", at.Time.Format(time.RFC3339), err)
		}
		if oldest, next := p.log.Bounds(); o == oldest && o < next {
			first, err := committed(ctx, p.log, oldest)
			if err != nil {
				return 0, err
			}
			if at.Time.Before(first) {
				return 0, p.tooOld(ctx, at.Time.Format(time.RFC3339))
			}
		}
		return o, nil
	case at.Position != "":
		o, err := findPosition(ctx, p.log, at.Position)
		if errors.Is(err, errBeforeLog) {
			return 0, p.tooOld(ctx, "position "+at.Position)
		}
		return o, err
	}
	return at.Offset, nil
}

// committed returns when the transaction of the first event at or above o was committed.
func committed(ctx context.Context, log pipeline.Log, o pipeline.Offset) (time.Time, error) {
	b, i, err := eventAt(ctx, log, o)
	if err != nil {
		return time.Time{}, err
	}
	defer b.Release()
	return time.UnixMicro(b.Txs[b.Events[i].Tx].Time).UTC(), nil
}

// eventAt returns the batch with the first event at or above o, which must be there, with a reference.
func eventAt(ctx context.Context, log pipeline.Log, o pipeline.Offset) (*pipeline.Batch, int, error) {
	lr, err := log.Read(o)
	if err != nil {
		return nil, 0, fmt.Errorf("read the log: %w", err)
	}
	defer lr.Close()
	for {
		b, err := lr.Next(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("read the log: %w", err)
		}
		if len(b.Events) > 0 && b.Next() > o {
			return b, int(max(o, b.Base) - b.Base), nil
		}
		b.Release()
	}
}

// count reads the window.
func (p *planned) count(ctx context.Context) error {
	began := time.Now()
	lr, err := p.log.Read(p.From)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer lr.Close()
	only := p.sub.Selector(p.scope, p.job.Kind, p.To)
	var keys keyCount
	var runs []pipeline.Run
	for at := p.From; at < p.To; {
		b, err := lr.Next(ctx)
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if at = b.Next(); len(b.Events) == 0 {
			b.Release()
			continue
		}
		if b.Base >= p.To { // a gap in the offsets
			b.Release()
			break
		}
		from, to := int(max(p.From, b.Base)-b.Base), int(min(p.To, b.Next())-b.Base)
		runs = only.Select(b, from, to, runs[:0])
		p.add(b, runs, &keys)
		err = p.whole(b, from, to)
		b.Release()
		if err != nil {
			return err
		}
	}
	if p.Events == 0 {
		return refuse("the window (offsets %d to %d) holds no event that is meant", p.From, p.To)
	}
	if n, why := only.Failed(); n > 0 {
		p.note("the filter fails on %d events of the window (%s): those count as meant, so that none is left out by mistake", n, why)
	}
	p.Keys, p.KeysAbout = keys.count()
	p.Takes = time.Since(began)
	if speed := p.sub.Speed(); speed > 0 {
		share := asideSpeed
		if p.job.Kind == pipeline.JobRewind {
			share = 1
		}
		p.Takes = max(p.Takes, time.Duration(float64(p.Events)/(speed*share)*float64(time.Second)))
	}
	return nil
}

// asideSpeed is the share of a subscriber's speed that a replay which yields to live gets.
const asideSpeed = 0.2

func (p *planned) add(b *pipeline.Batch, runs []pipeline.Run, keys *keyCount) {
	for _, r := range runs {
		p.Events += uint64(r.To - r.From)
		for i := r.From; i < r.To; i++ {
			e := &b.Events[i]
			for _, s := range [...]pipeline.Span{e.Key, e.Before, e.After} {
				if s.Present() {
					p.Bytes += uint64(s.Len)
				}
			}
			keys.add(e.Hash)
		}
		for tx := b.Events[r.From].Tx; tx <= b.Events[r.To-1].Tx; tx++ {
			at := time.UnixMicro(b.Txs[tx].Time).UTC()
			if p.Oldest.IsZero() || at.Before(p.Oldest) {
				p.Oldest = at
			}
			if at.After(p.Newest) {
				p.Newest = at
			}
		}
	}
}

// whole refuses to take single keys back behind a truncate of their table: it is not theirs alone to deliver
// again, and without it they would end with rows that are gone.
func (p *planned) whole(b *pipeline.Batch, from, to int) error {
	if p.job.Kind == pipeline.JobAside || !p.job.Scope.ByKey() {
		return nil
	}
	for i := from; i < to; i++ {
		if b.Events[i].Op == pipeline.OpTruncate && p.scope.HasSpace(b.TableOf(i)) {
			return refuse("table %s was truncated at offset %d: take single keys back to behind it (from offset %d on), or the whole table to before it",
				b.TableOf(i).Subject(), b.Offset(i), b.Offset(i)+1)
		}
	}
	return nil
}
