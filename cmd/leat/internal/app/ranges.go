package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/engine"
	"github.com/leat-cdc/leat/pipeline/partition"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// rangePolicy splits ranges by load: far above what one range needs to be told apart for, so that small sources keep one.
var rangePolicy = partition.Policy{Hot: 20_000}

// Ranges implements api.Backend.
func (s *Server) Ranges(ctx context.Context, r *leatv1.RangesRequest) (*leatv1.RangesResponse, error) {
	all, err := s.engine.Ranges(ctx, r.Source, r.Lineage)
	if err != nil {
		return nil, rangeError(err)
	}
	out := new(leatv1.RangesResponse)
	for _, x := range all {
		out.Ranges = append(out.Ranges, rangeState(x))
	}
	return out, nil
}

// SplitRange implements api.Backend.
func (s *Server) SplitRange(ctx context.Context, r *leatv1.SplitRangeRequest) (*leatv1.SplitRangeResponse, error) {
	log, err := s.engine.Log(r.Source)
	if err != nil {
		return nil, rangeError(err)
	}
	t, err := tableOf(log, r.Source, r.Table)
	if err != nil {
		return nil, err
	}
	at, err := partition.ParseKey(t, r.Key)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "%v", err)
	}
	h, err := partition.NewHistory(log.Ranges())
	if err != nil {
		return nil, err
	}
	m := h.Last().Map(t.KeySpace)
	id := m.Ranges()[m.Find(at)].ID
	if r.Range != nil {
		id = r.GetRange()
	}
	c, err := s.engine.Split(ctx, r.Source, t.KeySpace, id, at, rangeReason(ctx, r.Reason))
	if err != nil {
		return nil, rangeError(err)
	}
	api.Note(ctx, fmt.Sprintf("range %d of %s became %d and %d", id, c.Space, c.Opened[0].ID, c.Opened[1].ID))
	opened, err := s.opened(ctx, r.Source, c)
	return &leatv1.SplitRangeResponse{Ranges: opened}, err
}

// MergeRanges implements api.Backend.
func (s *Server) MergeRanges(ctx context.Context, r *leatv1.MergeRangesRequest) (*leatv1.MergeRangesResponse, error) {
	all, err := s.engine.Ranges(ctx, r.Source, false)
	if err != nil {
		return nil, rangeError(err)
	}
	space := ""
	for _, x := range all { // ids are unique in a source
		if x.ID != pipeline.WholeRange && x.ID == r.Ranges[0] {
			space = x.Space
		}
	}
	if space == "" {
		return nil, api.Errorf(api.Precondition, "source %q has no range %d that is open; `leat ranges list %s` lists them", r.Source, r.Ranges[0], r.Source)
	}
	c, err := s.engine.Merge(ctx, r.Source, space, r.Ranges, rangeReason(ctx, r.Reason))
	if err != nil {
		return nil, rangeError(err)
	}
	api.Note(ctx, fmt.Sprintf("ranges %v of %s became %d", c.Closed, c.Space, c.Opened[0].ID))
	opened, err := s.opened(ctx, r.Source, c)
	return &leatv1.MergeRangesResponse{Ranges: opened}, err
}

// opened describes the ranges that a change made.
func (s *Server) opened(ctx context.Context, source string, c pipeline.RangeChange) ([]*leatv1.RangeState, error) {
	all, err := s.engine.Ranges(ctx, source, true)
	if err != nil {
		return nil, err
	}
	var out []*leatv1.RangeState
	for _, x := range all {
		for _, o := range c.Opened {
			if x.ID == o.ID && x.Space == o.Space {
				out = append(out, rangeState(x))
			}
		}
	}
	return out, nil
}

func rangeReason(ctx context.Context, reason string) string {
	if reason == "" {
		return api.Actor(ctx)
	}
	return api.Actor(ctx) + ": " + reason
}

func rangeError(err error) error {
	var refused *partition.RangeError
	switch {
	case errors.As(err, &refused):
		return api.Errorf(api.Precondition, "%v: nothing was changed", err)
	case errors.Is(err, engine.ErrUnknown):
		return api.Errorf(api.NotFound, "%v", err)
	}
	return err
}

// tableOf finds the table whose routing key a key is.
func tableOf(log pipeline.Log, source, name string) (*schemas.Table, error) {
	tables := log.Tables()
	if name == "" && len(tables) == 1 {
		return tables[0], nil
	}
	for _, t := range tables {
		if t.Subject() == name {
			return t, nil
		}
	}
	if name == "" {
		return nil, api.Errorf(api.Invalid, "table is missing: source %q has %d tables with events", source, len(tables))
	}
	return nil, api.Errorf(api.NotFound, "source %q has no table %q with events", source, name)
}

func rangeState(x engine.RangeStatus) *leatv1.RangeState {
	return &leatv1.RangeState{Id: x.ID, Space: x.Space, Start: x.Start, End: x.End, StartText: partition.KeyText(x.Start), EndText: partition.KeyText(x.End),
		Parents: x.Parents, Children: x.Children, Opened: uint64(x.Opened), Closed: uint64(x.Closed), Load: x.Load, Unsplittable: x.Unsplittable, Reason: x.Reason}
}
