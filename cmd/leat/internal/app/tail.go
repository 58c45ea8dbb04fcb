package app

import (
	"context"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/cmd/leat/internal/views"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
)

// Tail implements api.Backend.
func (s *Server) Tail(ctx context.Context, r *leatv1.TailRequest, send func([][]byte) error) error {
	v, err := s.viewOf(r.Name)
	if err != nil {
		return err
	}
	oldest, next := v.Log.Bounds()
	v.From = next
	switch from := r.From.(type) {
	case *leatv1.TailRequest_Earliest:
		v.From = oldest
	case *leatv1.TailRequest_Offset:
		v.From = pipeline.Offset(from.Offset)
	case *leatv1.TailRequest_Time:
		if v.From, err = v.Log.At(ctx, from.Time.AsTime()); err != nil {
			return err
		}
	}
	if r.NoFollow {
		if v.To = next; v.From >= next {
			return nil
		}
	}
	if len(r.Tables) > 0 || r.Filter != "" {
		if v.Asked, err = s.compile(r.Tables, r.Filter); err != nil {
			return api.Errorf(api.Invalid, "filter: %w", err)
		}
	}
	if r.Key != "" {
		if v.Match, err = views.MatchKey(v.Enc, r.Key); err != nil {
			return err
		}
	}
	v.Show = func(_ []pipeline.Offset, events [][]byte) error { return send(events) }
	return views.Error(v.Run(ctx))
}

// Events implements api.Backend.
func (s *Server) Events(ctx context.Context, r api.EventsRequest, send func([]api.Event) error) error {
	sub, err := s.runningSubscription(r.Subscription)
	if err != nil {
		return err
	}
	if r.Source != "" && r.Source != sub.Source {
		return api.Errorf(api.Invalid, "the event id is of source %q, subscription %q reads %q", r.Source, r.Subscription, sub.Source)
	}
	v, err := s.viewOf(r.Subscription)
	if err != nil {
		return err
	}
	_, v.From = v.Log.Bounds()
	if r.After != nil {
		v.From = pipeline.Offset(*r.After) + 1
	}
	v.Found = func() error { return send(nil) }
	var buf []api.Event
	v.Show = func(offsets []pipeline.Offset, events [][]byte) error {
		buf = buf[:0]
		for i, o := range offsets {
			buf = append(buf, api.Event{Offset: uint64(o), ID: pipeline.EventID(sub.Source, o), JSON: events[i]})
		}
		return send(buf)
	}
	return views.Error(v.Run(ctx))
}

// viewOf prepares a view of a source, or of a subscription with its filter and columns.
func (s *Server) viewOf(name string) (*views.View, error) {
	s.mu.Lock()
	source := name
	sub, isSub := s.cfg.Subscriptions[name]
	_, isSource := s.cfg.Sources[name]
	publicURL := s.publicURL
	s.mu.Unlock()
	if !isSub && !isSource {
		return nil, api.Errorf(api.NotFound, "no source or subscription %q", name)
	}
	o := encode.Options{PublicURL: publicURL, Form: s.forms.Of}
	v := &views.View{}
	if isSub {
		source, v.For = sub.Source, name
		o = parts.Encoding(sub, publicURL, s.forms.Of)
		var err error
		if v.Filter, err = parts.Filter(sub, s.forms.Of); err != nil {
			return nil, err
		}
	}
	o.Source = source
	v.Enc = encode.JSON(o)
	log, err := s.engine.Log(source)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "%w", err)
	}
	v.Log, v.Source = log, source
	return v, nil
}
