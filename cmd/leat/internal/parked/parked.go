// Package parked lists the keys that a subscription has parked and its dead letters, finds those that somebody names,
// and has them redriven or discarded.
package parked

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/views"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Subscription is one, as far as its parked keys are concerned.
type Subscription struct {
	Name, Source string
	Store        *state.Store
	// View of its events.
	View func() (*views.View, error)
	// Do calls f with what delivers.
	Do func(f func(*deliver.Subscription) error) error
}

// park is a parked key with what people know it by.
type park struct {
	pipeline.Park
	first, table string
	// JSON of the first event's row key and of the routing key; empty where the event is gone.
	key, partition string
	held           uint64
}

// list is what is parked, the oldest first.
func (s Subscription) list(ctx context.Context) ([]park, error) {
	list, err := s.Store.Parks(ctx, s.Name)
	if err != nil {
		return nil, err
	}
	var all []park
	for _, p := range list {
		if p.Interval { // a range that pauses: the status names it
			continue
		}
		all = append(all, park{Park: p, first: pipeline.EventID(s.Source, p.From), key: p.KeyJSON})
	}
	return all, nil
}

// name fills in what the first event says of a parked key: its dead letter has it, else the log.
func (s Subscription) name(ctx context.Context, p *park) {
	var e struct {
		Subject   string
		Partition json.RawMessage `json:"partitionkey"`
		Data      struct{ Key json.RawMessage }
	}
	text := Letter(ctx, s.Store, s.Name, p.From)
	if text == nil {
		text = s.eventText(ctx, p.From)
	}
	if json.Unmarshal(text, &e) != nil {
		return
	}
	p.table, p.partition = e.Subject, partitionText(e.Partition)
	if p.key == "" {
		p.key = string(e.Data.Key)
	}
}

// partitionText is the routing key as JSON; CloudEvents carry it as a string.
func partitionText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// eventText is the event at an offset as the subscription would see it, nil when the log no longer has it.
func (s Subscription) eventText(ctx context.Context, o pipeline.Offset) (text []byte) {
	v, err := s.View()
	if err != nil {
		return nil
	}
	v.From, v.To, v.Filter = o, o+1, nil
	v.Show = func(_ []pipeline.Offset, events [][]byte) error { text = events[0]; return nil }
	if v.Run(ctx) != nil {
		return nil
	}
	return text
}

// countTime bounds how long held events are counted.
const countTime = 2 * time.Second

// count fills in how many events each of list holds, by one way through the log; partial when that took too
// long: there are at least so many. Callers gave list in order.
func (s Subscription) count(ctx context.Context, list []park) (partial bool) {
	if len(list) == 0 {
		return false
	}
	v, err := s.View()
	if err != nil {
		return true
	}
	byHash, single := map[uint64]*park{}, map[pipeline.Offset]*park{}
	for i := range list {
		p := &list[i]
		p.held = 1
		if p.Single {
			single[p.From] = p
			continue
		}
		byHash[p.Hash] = p
	}
	if len(byHash) == 0 {
		return false
	}
	oldest, next := v.Log.Bounds()
	v.From, v.To = max(oldest, list[0].From), next
	copies, err := s.Store.HeldCounts(ctx, s.Name, oldest)
	if err != nil {
		return true
	}
	for id, n := range copies {
		if p := byHash[id.Hash]; p != nil && id.Single == 0 {
			p.held = n
			if p.From >= oldest {
				p.held++ // its first
			}
		}
	}
	v.Match = func(b *pipeline.Batch, i int) bool {
		if p := byHash[b.Events[i].Hash]; p != nil && b.Offset(i) > p.From {
			p.held++
		}
		return false
	}
	limit, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	if v.From >= v.To {
		return false
	}
	err = v.Run(limit)
	return err != nil || limit.Err() != nil
}

// keys fills in what Parked tells of parked keys: the oldest limit of them.
func (s Subscription) keys(ctx context.Context, limit int, resp *leatv1.ParkedResponse) error {
	list, err := s.list(ctx)
	if err != nil {
		return err
	}
	resp.ParkedTotal = uint64(len(list))
	list = list[:min(len(list), limit)]
	resp.Partial = s.count(ctx, list)
	for i := range list {
		p := &list[i]
		s.name(ctx, p)
		resp.Parked = append(resp.Parked, &leatv1.ParkedKey{Key: p.key, Partitionkey: p.partition, First: p.first, Held: p.held,
			Attempts: uint32(p.Attempts), Reason: p.Reason, Since: timestamppb.New(p.Since), Redriving: p.Redrive})
	}
	return nil
}

// choose finds the parks that a request names; each of keys must name one.
func (s Subscription) choose(ctx context.Context, keys []string, all bool) ([]park, error) {
	list, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, api.Errorf(api.Precondition, "%q has no parked keys", s.Name)
	}
	if all {
		return list, nil
	}
	if slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "[") || strings.HasPrefix(k, "{") }) {
		for i := range list {
			s.name(ctx, &list[i])
		}
	}
	var chosen []park
	for _, key := range keys {
		found, err := match(list, key)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, api.Errorf(api.Precondition, "key %s of %q is not parked; leat parked %s lists those that are", key, s.Name, s.Name)
		}
		for _, p := range found[1:] {
			if p.Space != found[0].Space {
				return nil, api.Errorf(api.Precondition, "key %s of %q is parked in %q and in %q: give the first event's id (%s or %s)", key, s.Name, found[0].Space, p.Space, found[0].first, p.first)
			}
		}
		chosen = append(chosen, found...)
	}
	return chosen, nil
}

// match finds the parks with a routing key (an array), a row's key (an object) or the id of the first event.
func match(list []park, key string) ([]park, error) {
	var found []park
	var by func(*park) string
	want := key
	switch {
	case strings.HasPrefix(key, "["):
		by, want = func(p *park) string { return views.Canonical(p.partition) }, views.Canonical(key)
	case strings.HasPrefix(key, "{"):
		by, want = func(p *park) string { return views.Canonical(p.key) }, views.Canonical(key)
	default:
		by = func(p *park) string { return p.first }
		if _, _, err := pipeline.ParseEventID(key); err != nil {
			want = ""
		}
	}
	if want == "" {
		return nil, api.Errorf(api.Invalid, `key %s is neither a routing key ([77]), nor a row's key ({"id":42}), nor the id of an event`, key)
	}
	for i := range list {
		if by(&list[i]) == want {
			found = append(found, list[i])
		}
	}
	return found, nil
}

func keysOf(list []park) []deliver.ParkKey {
	keys := make([]deliver.ParkKey, len(list))
	for i, p := range list {
		keys[i] = deliver.ParkKey{Space: p.Space, Key: p.Key}
	}
	return keys
}

// Redrive has keys redriven.
func (s Subscription) Redrive(ctx context.Context, r *leatv1.RedriveRequest) (*leatv1.RedriveResponse, error) {
	chosen, err := s.choose(ctx, r.Keys, r.All)
	if err != nil {
		return nil, err
	}
	var n int
	err = s.Do(func(d *deliver.Subscription) (err error) {
		n, err = d.Redrive(ctx, keysUnless(r.All, chosen))
		return err
	})
	if err != nil {
		return nil, actError(err)
	}
	api.Note(ctx, fmt.Sprintf("%d keys", n))
	return &leatv1.RedriveResponse{Keys: uint64(n)}, nil
}

// keysUnless all: nil is all.
func keysUnless(all bool, chosen []park) []deliver.ParkKey {
	if all {
		return nil
	}
	return keysOf(chosen)
}

// Discard gives up on what keys hold.
func (s Subscription) Discard(ctx context.Context, r *leatv1.DiscardRequest) (*leatv1.DiscardResponse, error) {
	chosen, err := s.choose(ctx, r.Keys, r.All)
	if err != nil {
		return nil, err
	}
	resp := &leatv1.DiscardResponse{Keys: uint64(len(chosen))}
	slices.SortFunc(chosen, func(a, b park) int { return int(int64(a.From - b.From)) })
	resp.Partial = s.count(ctx, chosen)
	for _, p := range chosen {
		resp.Events += p.held
	}
	if r.DryRun {
		return resp, nil
	}
	by := api.Actor(ctx)
	if r.Reason != "" {
		by += ": " + r.Reason
	}
	var n int
	err = s.Do(func(d *deliver.Subscription) (err error) {
		// Those that were counted, also where another key was parked meanwhile.
		n, err = d.Discard(ctx, keysOf(chosen), by)
		return err
	})
	if err != nil {
		return nil, actError(err)
	}
	resp.Keys = uint64(n)
	api.Note(ctx, fmt.Sprintf("%d keys, %d events", resp.Keys, resp.Events))
	return resp, nil
}

// actError gives an error of a subscription that was to act its kind.
func actError(err error) error {
	if errors.Is(err, deliver.ErrNotRunning) {
		return api.Errorf(api.Unavailable, "%w", err)
	}
	return api.Errorf(api.Precondition, "%w", err)
}
