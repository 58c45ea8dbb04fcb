package parked

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/state"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// MaxSkips is how many skipped stretches are listed.
const MaxSkips = 1000

// Parked lists parked keys, dead letters and skipped stretches.
func (s Subscription) Parked(ctx context.Context, r *leatv1.ParkedRequest) (*leatv1.ParkedResponse, error) {
	total, err := s.Store.CountDeadLetters(ctx, s.Name)
	if err != nil {
		return nil, err
	}
	letters, err := s.letters(ctx, r)
	if err != nil {
		return nil, err
	}
	resp := &leatv1.ParkedResponse{Total: total}
	for _, d := range letters {
		p := &leatv1.DeadLetter{Id: d.ID, Offset: uint64(d.Offset), Table: d.Table, Key: d.KeyJSON, Reason: d.Reason, Time: timestamppb.New(d.Time), Event: d.Event}
		for _, a := range d.Attempts {
			p.Attempts = append(p.Attempts, &leatv1.Attempt{Time: timestamppb.New(a.Time), Took: durationpb.New(a.Took), Reason: a.Reason})
		}
		resp.Dead = append(resp.Dead, p)
	}
	if len(r.Ids) == 0 {
		if err := s.keys(ctx, limitOf(r), resp); err != nil {
			return nil, err
		}
	}
	skips, err := s.Store.Skips(ctx, s.Name, MaxSkips)
	if err != nil {
		return nil, err
	}
	listed := pipeline.Offset(0)
	for _, k := range skips {
		for _, o := range k.Ranges {
			listed = max(listed, o.To)
			resp.Skipped = append(resp.Skipped, &leatv1.Skipped{From: uint64(o.From), To: uint64(o.To), Reason: k.Reason, Time: timestamppb.New(k.Time)})
		}
	}
	if len(r.Ids) > 0 {
		return resp, nil
	}
	lost, err := s.expired(ctx, listed)
	resp.Skipped = append(resp.Skipped, lost...)
	return resp, err
}

// expired is what retention has removed before it was delivered and the subscription, which stands still, has not
// listed itself yet; it will when it reads on.
func (s Subscription) expired(ctx context.Context, listed pipeline.Offset) (lost []*leatv1.Skipped, err error) {
	cur, ok, err := s.Store.Load(ctx, s.Name)
	if err != nil || !ok {
		return nil, err
	}
	v, err := s.View()
	if err != nil || cur.Log != v.Log.ID() {
		return nil, nil // the log is not open, or another one: what it keeps is not known
	}
	oldest, _ := v.Log.Bounds()
	for _, o := range append(cur.Pending, pipeline.OffsetRange{From: max(cur.Low, cur.High), To: oldest}) {
		if o.From, o.To = max(o.From, listed), min(o.To, oldest); o.From < o.To {
			lost = append(lost, &leatv1.Skipped{From: uint64(o.From), To: uint64(o.To), Reason: "retention has removed it before it was delivered; the subscription has not come to it yet"})
		}
	}
	return lost, nil
}

// usualParked is how many dead letters and parked keys are listed unless a request asks for up to ten times as many.
const usualParked = 1000

func limitOf(r *leatv1.ParkedRequest) int {
	if r.Limit > 0 && r.Limit < 10*usualParked {
		return int(r.Limit)
	}
	return usualParked
}

// letters are those that are asked for by id, with their events, else the oldest.
func (s Subscription) letters(ctx context.Context, r *leatv1.ParkedRequest) ([]pipeline.DeadLetter, error) {
	if len(r.Ids) == 0 {
		return s.Store.DeadLetters(ctx, s.Name, 0, limitOf(r), false)
	}
	if len(r.Ids) > usualParked {
		return nil, api.Errorf(api.Invalid, "at most %d ids at once", usualParked)
	}
	var all []pipeline.DeadLetter
	for _, id := range r.Ids {
		_, o, err := pipeline.ParseEventID(id)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "%w", err)
		}
		if o == 0 {
			continue
		}
		found, err := s.Store.DeadLetters(ctx, s.Name, o-1, 1, true)
		if err != nil {
			return nil, err
		}
		if len(found) == 1 && found[0].ID == id {
			all = append(all, found[0])
		}
	}
	return all, nil
}

// Letter is the event of the dead letter at an offset; nil when there is none.
func Letter(ctx context.Context, store *state.Store, subscription string, o pipeline.Offset) []byte {
	if o == 0 {
		return nil
	}
	found, err := store.DeadLetters(ctx, subscription, o-1, 1, true)
	if err != nil || len(found) != 1 || found[0].Offset != o {
		return nil
	}
	return found[0].Event
}
