package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/deliver"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// park is a parked key with what people know it by.
type park struct {
	pipeline.Park
	first, table string
	// JSON of the first event's row key and of the routing key; empty where the event is gone.
	key, partition string
	held           uint64
}

// parksOf lists what a subscription has parked, the oldest first.
func (s *Server) parksOf(ctx context.Context, name string) ([]park, error) {
	source := s.sourceOf(name)
	list, err := s.store.Parks(ctx, name)
	if err != nil {
		return nil, err
	}
	var all []park
	for _, p := range list {
		all = append(all, park{Park: p, first: pipeline.EventID(source, p.From), key: p.KeyJSON})
	}
	return all, nil
}

// sourceOf a subscription, also of one that is kept though the file does not name it.
func (s *Server) sourceOf(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.cfg.Subscriptions[name]; sub != nil {
		return sub.Source
	}
	return s.gone[name].Source
}

// name fills in what the first event says of a parked key: its dead letter has it, else the log.
func (s *Server) name(ctx context.Context, subscription string, p *park) {
	var e struct {
		Subject   string
		Partition json.RawMessage `json:"partitionkey"`
		Data      struct{ Key json.RawMessage }
	}
	text := s.letterText(ctx, subscription, p.From)
	if text == nil {
		text = s.eventText(ctx, subscription, p.From)
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

func (s *Server) letterText(ctx context.Context, subscription string, o pipeline.Offset) []byte {
	if o == 0 {
		return nil
	}
	found, err := s.store.DeadLetters(ctx, subscription, o-1, 1, true)
	if err != nil || len(found) != 1 || found[0].Offset != o {
		return nil
	}
	return found[0].Event
}

// eventText is the event at an offset as the subscription would see it, nil when the log no longer has it.
func (s *Server) eventText(ctx context.Context, subscription string, o pipeline.Offset) (text []byte) {
	v, err := s.viewOf(subscription)
	if err != nil {
		return nil
	}
	v.from, v.to, v.filter = o, o+1, nil
	v.show = func(_ []pipeline.Offset, events [][]byte) error { text = events[0]; return nil }
	if v.run(ctx) != nil {
		return nil
	}
	return text
}

// countTime bounds how long held events are counted.
const countTime = 2 * time.Second

// count fills in how many events each of list holds, by one way through the log; partial when that took too
// long: there are at least so many. Callers gave list in order.
func (s *Server) count(ctx context.Context, subscription string, list []park) (partial bool) {
	if len(list) == 0 {
		return false
	}
	v, err := s.viewOf(subscription)
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
	oldest, next := v.log.Bounds()
	v.from, v.to = max(oldest, list[0].From), next
	copies, err := s.store.HeldCounts(ctx, subscription, oldest)
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
	v.match = func(b *pipeline.Batch, i int) bool {
		if p := byHash[b.Events[i].Hash]; p != nil && b.Offset(i) > p.From {
			p.held++
		}
		return false
	}
	limit, cancel := context.WithTimeout(ctx, countTime)
	defer cancel()
	if v.from >= v.to {
		return false
	}
	err = v.run(limit)
	return err != nil || limit.Err() != nil
}

// parkedKeys fills in what Parked tells of parked keys: the oldest limit of them.
func (s *Server) parkedKeys(ctx context.Context, name string, limit int, resp *leatv1.ParkedResponse) error {
	list, err := s.parksOf(ctx, name)
	if err != nil {
		return err
	}
	resp.ParkedTotal = uint64(len(list))
	list = list[:min(len(list), limit)]
	resp.Partial = s.count(ctx, name, list)
	for i := range list {
		p := &list[i]
		s.name(ctx, name, p)
		resp.Parked = append(resp.Parked, &leatv1.ParkedKey{Key: p.key, Partitionkey: p.partition, First: p.first, Held: p.held,
			Attempts: uint32(p.Attempts), Reason: p.Reason, Since: timestamppb.New(p.Since), Redriving: p.Redrive})
	}
	return nil
}

// choose finds the parks that a request names; each of keys must name one.
func (s *Server) choose(ctx context.Context, name string, keys []string, all bool) ([]park, error) {
	s.mu.Lock()
	known := s.cfg.Subscriptions[name] != nil
	s.mu.Unlock()
	if !known {
		return nil, api.Errorf(api.NotFound, "no subscription %q", name)
	}
	list, err := s.parksOf(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, api.Errorf(api.Precondition, "%q has no parked keys", name)
	}
	if all {
		return list, nil
	}
	if slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, "[") || strings.HasPrefix(k, "{") }) {
		for i := range list {
			s.name(ctx, name, &list[i])
		}
	}
	var chosen []park
	for _, key := range keys {
		found, err := match(list, key)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, api.Errorf(api.Precondition, "key %s of %q is not parked; leat parked %s lists those that are", key, name, name)
		}
		for _, p := range found[1:] {
			if p.Space != found[0].Space {
				return nil, api.Errorf(api.Precondition, "key %s of %q is parked in %q and in %q: give the first event's id (%s or %s)", key, name, found[0].Space, p.Space, found[0].first, p.first)
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
		by, want = func(p *park) string { return canonical(p.partition) }, canonical(key)
	case strings.HasPrefix(key, "{"):
		by, want = func(p *park) string { return canonical(p.key) }, canonical(key)
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

// canonical is JSON that is the same for the same value; empty for what is no JSON.
func canonical(text string) string {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return ""
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(v) != nil {
		return ""
	}
	return out.String()
}

func keysOf(list []park) []deliver.ParkKey {
	keys := make([]deliver.ParkKey, len(list))
	for i, p := range list {
		keys[i] = deliver.ParkKey{Space: p.Space, Key: p.Key}
	}
	return keys
}

// Redrive implements api.Backend.
func (s *Server) Redrive(ctx context.Context, r *leatv1.RedriveRequest) (*leatv1.RedriveResponse, error) {
	chosen, err := s.choose(ctx, r.Subscription, r.Keys, r.All)
	if err != nil {
		return nil, err
	}
	var n int
	err = s.engine.Do(r.Subscription, func(d *deliver.Subscription) (err error) {
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

// Discard implements api.Backend.
func (s *Server) Discard(ctx context.Context, r *leatv1.DiscardRequest) (*leatv1.DiscardResponse, error) {
	chosen, err := s.choose(ctx, r.Subscription, r.Keys, r.All)
	if err != nil {
		return nil, err
	}
	resp := &leatv1.DiscardResponse{Keys: uint64(len(chosen))}
	slices.SortFunc(chosen, func(a, b park) int { return int(int64(a.From - b.From)) })
	resp.Partial = s.count(ctx, r.Subscription, chosen)
	for _, p := range chosen {
		resp.Events += p.held
	}
	if r.DryRun {
		return resp, nil
	}
	by := "discarded by " + api.Actor(ctx)
	if r.Reason != "" {
		by += ": " + r.Reason
	}
	var n int
	err = s.engine.Do(r.Subscription, func(d *deliver.Subscription) (err error) {
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
