// Package explain tells what became of an event: delivered, filtered out, held, parked, skipped, given up on, or not
// there yet, and why. It reads what is written down and the log, and changes nothing.
package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/parked"
	"github.com/leat-cdc/leat/cmd/leat/internal/views"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// What became of an event: Explained.state.
const (
	fateDelivered = "delivered"
	fateInFlight  = "in_flight"
	fateHeld      = "held"
	fateRetrying  = "retrying"
	fateParked    = "parked"
	fateDead      = "dead"
	fateFiltered  = "filtered"
	fateSkipped   = "skipped"
	fateUnread    = "unread"
	fateExpired   = "expired"
)

// Subscription is one whose events are explained.
type Subscription struct {
	Name, Source string
	Store        *state.Store
	// View of its events; it is used up.
	View   *views.View
	Status engine.SubscriptionStatus
	// Throttles in force.
	Throttles []*leatv1.ThrottleState
	// Retrying asks those that deliver about an event: see deliver.Subscription.
	Retrying func(at pipeline.Offset, hash uint64) *deliver.Retrying
}

// explainer knows what a subscription's state says of any event of its log.
type explainer struct {
	Subscription
	filter *filter.Filter // nil = everything
	parks  []pipeline.Park
	skips  []pipeline.Skip
	cursor pipeline.Cursor // of this log; zero without one
	oldest pipeline.Offset
	next   pipeline.Offset
}

func newExplainer(ctx context.Context, s Subscription) (*explainer, error) {
	x := &explainer{Subscription: s}
	s.View.For = "" // rows for others are explained too
	if s.View.Filter != nil {
		x.filter = s.View.Filter.New()
		s.View.Filter = nil // what it leaves out is explained too
	}
	var err error
	if x.parks, err = s.Store.Parks(ctx, s.Name); err != nil {
		return nil, err
	}
	if x.skips, err = s.Store.Skips(ctx, s.Name, parked.MaxSkips); err != nil {
		return nil, err
	}
	c, ok, err := s.Store.Load(ctx, s.Name)
	if err != nil {
		return nil, err
	}
	if ok && c.Log == s.View.Log.ID() {
		x.cursor = c
	}
	x.oldest, x.next = s.View.Log.Bounds()
	return x, nil
}

// Explain tells of an event, or of the newest events of a key.
func (s Subscription) Explain(ctx context.Context, r *leatv1.ExplainRequest) (*leatv1.ExplainResponse, error) {
	x, err := newExplainer(ctx, s)
	if err != nil {
		return nil, err
	}
	if r.Key != "" {
		return x.key(ctx, r)
	}
	source, o, err := pipeline.ParseEventID(r.EventId)
	switch {
	case err != nil:
		return nil, api.Errorf(api.Invalid, "%w", err)
	case source != x.Source:
		return nil, api.Errorf(api.Invalid, "the event id is of source %q, subscription %q reads %q", source, r.Subscription, x.Source)
	case o >= x.next:
		return nil, api.Errorf(api.NotFound, "the log of %q has no event %d yet: its next one is %d", source, o, x.next)
	}
	e := &leatv1.Explained{Id: r.EventId, Offset: uint64(o)}
	if o < x.oldest {
		return &leatv1.ExplainResponse{Events: []*leatv1.Explained{e}}, x.expired(ctx, e)
	}
	resp := &leatv1.ExplainResponse{}
	if err := x.walk(ctx, o, o+1, func(b *pipeline.Batch, i int) error {
		e, err := x.event(ctx, b, i)
		resp.Events = append(resp.Events, e)
		return err
	}); err != nil {
		return nil, err
	}
	if len(resp.Events) == 0 {
		return nil, api.Errorf(api.NotFound, "the log of %q has no event %d", source, o)
	}
	return resp, nil
}

// walk calls f for each event of the log in [from, to), whatever the filter says of it.
func (x *explainer) walk(ctx context.Context, from, to pipeline.Offset, f func(*pipeline.Batch, int) error) error {
	v := *x.View
	var failed error
	v.From, v.To = from, to
	v.Match = func(b *pipeline.Batch, i int) bool {
		if failed == nil {
			failed = f(b, i)
		}
		return false
	}
	if err := v.Run(ctx); err != nil {
		return views.Error(err)
	}
	return errors.Join(failed, ctx.Err())
}

// seen is what the JSON of an event tells.
type seen struct {
	Subject      string
	Time         time.Time
	Partitionkey string
	Data         struct {
		Op       string
		Key      json.RawMessage
		Position string
		Tx       struct {
			ID  string
			Seq uint64
		}
	}
}

// tell fills in what the JSON of an event says.
func tell(e *leatv1.Explained, text []byte) {
	var j seen
	if json.Unmarshal(text, &j) != nil {
		return
	}
	e.Table, e.Op, e.Key, e.Partitionkey = j.Subject, j.Data.Op, string(j.Data.Key), j.Partitionkey
	e.Transaction, e.Sequence, e.Position = j.Data.Tx.ID, j.Data.Tx.Seq, j.Data.Position
	if !j.Time.IsZero() {
		e.Committed = timestamppb.New(j.Time)
	}
}

// event explains one that the log has.
func (x *explainer) event(ctx context.Context, b *pipeline.Batch, i int) (*leatv1.Explained, error) {
	o := b.Offset(i)
	e := &leatv1.Explained{Id: pipeline.EventID(x.Source, o), Offset: uint64(o)}
	as := b.Events[i].Op
	selected, reason := b.Meant(x.Name), "it is a row of a snapshot for subscription "
	if !selected {
		reason += b.Snapshot.For
	} else if x.filter != nil {
		runs, fails := x.filter.Select(b, i, i+1, nil, nil)
		selected = len(runs) > 0
		switch {
		case selected:
			as = runs[0].As
		case len(fails) > 0:
			reason = "the filter fails on it"
		default:
			reason = "the tables or the filter of the subscription leave it out"
		}
	}
	if text, err := x.View.Enc.Append(nil, b, i, as); err == nil {
		tell(e, text)
	}
	if kept, err := x.kept(ctx, e); kept || err != nil {
		return e, err
	}
	if !selected {
		e.State, e.Reason = fateFiltered, reason
		return e, nil
	}
	x.fate(e, b, i)
	return e, nil
}

// onlyKey stands before the key in the reason of a skip that is about one key: see deliver.Subscription.Discard.
const onlyKey = "only the events of key "

// kept tells of an event what was written down of it: that it is parked, given up on, skipped.
func (x *explainer) kept(ctx context.Context, e *leatv1.Explained) (bool, error) {
	o := pipeline.Offset(e.Offset)
	if o > 0 {
		letters, err := x.Store.DeadLetters(ctx, x.Name, o-1, 1, false)
		if err != nil {
			return false, err
		}
		if len(letters) == 1 && letters[0].Offset == o {
			e.State, e.Reason = fateDead, letters[0].Reason
			e.Attempts = attempts(letters[0].Attempts)
		}
	}
	for i := range x.parks {
		if p := &x.parks[i]; p.From == o && !p.Interval && p.Log == x.View.Log.ID() {
			e.State, e.Reason = fateParked, p.Reason
			if p.Redrive {
				e.Reason += "; is being redriven"
			}
			return true, nil
		}
	}
	if e.State != "" {
		return true, nil
	}
	for _, k := range x.skips {
		for _, r := range k.Ranges {
			if r.From <= o && o < r.To && (!strings.Contains(k.Reason, onlyKey) || strings.Contains(k.Reason, onlyKey+e.Key+" in ")) {
				e.State, e.Reason = fateSkipped, k.Reason
				return true, nil
			}
		}
	}
	return false, nil
}

// fate of an event that the subscription takes and of which nothing was written down.
func (x *explainer) fate(e *leatv1.Explained, b *pipeline.Batch, i int) {
	o, hash := pipeline.Offset(e.Offset), b.Events[i].Hash
	for i := range x.parks {
		if p := &x.parks[i]; !p.Single && p.Hash == hash && o > p.From && p.Log == x.View.Log.ID() {
			e.State, e.Reason = fateHeld, "its key is parked since "+pipeline.EventID(x.Source, p.From)+": leat redrive or leat discard"
			return
		}
	}
	if x.paused(b, i) {
		e.State, e.Reason = fateHeld, "its range pauses, as too many of its keys are parked: leat redrive or leat discard makes room; what was in flight when that began may have come, and comes again"
		return
	}
	low, read := max(x.Status.Low, x.cursor.Low), max(x.Status.Read, x.cursor.Low)
	switch {
	case o < low, o < x.cursor.High && !x.pending(o):
		e.State = fateDelivered
	case o >= read:
		e.State, e.Reason = fateUnread, "the subscription has not read so far yet"
		x.waits(e)
	case x.retrying(e, hash):
		x.waits(e)
	default:
		e.State, e.Reason = fateInFlight, "read; it is being delivered, tried again, or waits for an earlier event of its key"
		x.waits(e)
	}
}

// paused reports whether a range that pauses holds the event.
func (x *explainer) paused(b *pipeline.Batch, i int) bool {
	t, key := b.TableOf(i), b.Bytes(b.Events[i].Key)
	if t == nil || b.Events[i].Op.Barrier() {
		return false
	}
	return slices.ContainsFunc(x.parks, func(p pipeline.Park) bool {
		in := pipeline.Range{Start: p.Key, End: p.Until}
		return p.Interval && p.Log == x.View.Log.ID() && p.From <= b.Offset(i) && p.Space == t.KeySpace && in.Contains(key)
	})
}

// retrying tells of an event that failed, with its attempts, or that waits behind one of its key.
func (x *explainer) retrying(e *leatv1.Explained, hash uint64) bool {
	r := x.Retrying(pipeline.Offset(e.Offset), hash)
	if r == nil {
		return false
	}
	if !r.Until.IsZero() {
		e.Until = timestamppb.New(r.Until)
	}
	if first := uint64(r.First); first < e.Offset {
		e.State, e.Reason = fateHeld, fmt.Sprintf("it waits for event %s of its key, which failed %d times and is tried again", pipeline.EventID(x.Source, r.First), r.Tries)
		return true
	}
	e.State, e.Reason = fateRetrying, fmt.Sprintf("it failed %d times and is tried again", r.Tries)
	e.Attempts = attempts(r.Attempts)
	if n := len(r.Attempts); n > 0 {
		e.Reason += ": " + r.Attempts[n-1].Reason
	}
	return true
}

func attempts(all []pipeline.Attempt) (out []*leatv1.Attempt) {
	for _, t := range all {
		out = append(out, &leatv1.Attempt{Time: timestamppb.New(t.Time), Took: durationpb.New(t.Took), Reason: t.Reason})
	}
	return out
}

// pending reports whether the cursor lists an offset below its High as not done.
func (x *explainer) pending(o pipeline.Offset) bool {
	return slices.ContainsFunc(x.cursor.Pending, func(r pipeline.OffsetRange) bool { return r.From <= o && o < r.To })
}

// waits adds why the whole subscription waits.
func (x *explainer) waits(e *leatv1.Explained) {
	if x.Status.State != "" && x.Status.State != "running" {
		e.Reason += "; the subscription is " + x.Status.State
		if x.Status.Reason != "" {
			e.Reason += ": " + x.Status.Reason
		}
	}
	for _, t := range x.Throttles {
		e.Reason += fmt.Sprintf("; throttled to %v by %s", t.Ratio, t.Owner)
	}
	if !x.Status.Until.IsZero() && e.Until == nil {
		e.Until = timestamppb.New(x.Status.Until)
	}
}

// expired explains an event that the log no longer has.
func (x *explainer) expired(ctx context.Context, e *leatv1.Explained) error {
	if text := parked.Letter(ctx, x.Store, x.Name, pipeline.Offset(e.Offset)); text != nil {
		tell(e, text)
	}
	if kept, err := x.kept(ctx, e); kept || err != nil {
		return err
	}
	e.State, e.Reason = fateExpired, fmt.Sprintf("the log begins at %d; what it no longer has was delivered or filtered out before, unless it is listed as skipped", x.oldest)
	return nil
}

const (
	usualExplained, mostExplained = 20, 1000
	// explainTime bounds the search for the events of a key.
	explainTime = 10 * time.Second
	// explainWindow is how many of the newest events are looked through first; each window before it is ten
	// times as large.
	explainWindow = 100_000
)

// key explains the newest events of a key.
func (x *explainer) key(ctx context.Context, r *leatv1.ExplainRequest) (*leatv1.ExplainResponse, error) {
	limit := usualExplained
	if r.Limit > 0 {
		limit = int(r.Limit)
	}
	if limit > mostExplained {
		return nil, api.Errorf(api.Invalid, "limit: at most %d events at once", mostExplained)
	}
	want := views.Canonical(r.Key)
	row := strings.HasPrefix(want, "{")
	if !row && !strings.HasPrefix(want, "[") {
		return nil, api.Errorf(api.Invalid, `key %s is neither a row's key ({"id":42}) nor a routing key ([77])`, r.Key)
	}
	search, cancel := context.WithTimeout(ctx, explainTime)
	defer cancel()
	resp := &leatv1.ExplainResponse{}
	to, window := x.next, pipeline.Offset(explainWindow)
	for to > x.oldest && len(resp.Events) < limit {
		from := x.oldest
		if to-x.oldest > window {
			from = to - window
		}
		var found []*leatv1.Explained
		more := false
		err := x.walk(search, from, to, func(b *pipeline.Batch, i int) error {
			key, partition, err := x.View.Enc.Key(b, i)
			if err != nil || row && views.Canonical(key) != want || !row && views.Canonical(partition) != want {
				return nil
			}
			e, err := x.event(ctx, b, i)
			if found = append(found, e); len(found) > limit {
				found, more = found[1:], true
			}
			return err
		})
		if search.Err() != nil && ctx.Err() == nil { // what was found so far counts
			resp.More = true
			break
		}
		if err != nil {
			return nil, err
		}
		if room := limit - len(resp.Events); len(found) > room {
			found, more = found[len(found)-room:], true
		}
		resp.Events, resp.More = append(found, resp.Events...), more
		to, window = from, window*10
	}
	resp.More = resp.More || to > x.oldest
	return resp, nil
}
