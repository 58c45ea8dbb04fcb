package api

import (
	"context"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Ranges needs a source.
func (a *admin) Ranges(ctx context.Context, r *connect.Request[leatv1.RangesRequest]) (*connect.Response[leatv1.RangesResponse], error) {
	if err := named("source", r.Msg.GetSource()); err != nil {
		return nil, err
	}
	return answer(a.b.Ranges(ctx, r.Msg))
}

// SplitRange needs a source and a key.
func (a *admin) SplitRange(ctx context.Context, r *connect.Request[leatv1.SplitRangeRequest]) (*connect.Response[leatv1.SplitRangeResponse], error) {
	if err := named("source", r.Msg.GetSource()); err != nil {
		return nil, err
	}
	if r.Msg.GetKey() == "" {
		return nil, connectError(Errorf(Invalid, `key is missing: a JSON object of the routing columns, as {"id":42}`))
	}
	return answer(a.b.SplitRange(ctx, r.Msg))
}

// MergeRanges needs a source and two ranges or more.
func (a *admin) MergeRanges(ctx context.Context, r *connect.Request[leatv1.MergeRangesRequest]) (*connect.Response[leatv1.MergeRangesResponse], error) {
	if err := named("source", r.Msg.GetSource()); err != nil {
		return nil, err
	}
	if n := len(r.Msg.GetRanges()); n < 2 || n > pipeline.MaxRanges {
		return nil, connectError(Errorf(Invalid, "%d ranges: a merge needs two or more, at most %d", n, pipeline.MaxRanges))
	}
	return answer(a.b.MergeRanges(ctx, r.Msg))
}
