package app

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/parts"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
)

// view is a way through a log that moves no cursor.
type view struct {
	log    pipeline.Log
	from   pipeline.Offset
	to     pipeline.Offset // 0 = follow
	filter *filter.Program // nil = everything
	enc    *encode.Encoder
	match  func(b *pipeline.Batch, i int) bool // nil = everything
	// show takes what was selected of one batch; the slices are used again afterwards.
	show func(offsets []pipeline.Offset, events [][]byte) error
	// found, when set, is called once the place to begin at was found.
	found func() error
}

// run reads until ctx ends (nil), the end is reached (nil) or show fails.
func (v *view) run(ctx context.Context) error {
	r, err := v.log.Read(v.from)
	if err != nil {
		return err
	}
	defer r.Close()
	if v.found != nil {
		if err := v.found(); err != nil {
			return err
		}
	}
	var f *filter.Filter
	if v.filter != nil {
		f = v.filter.New()
	}
	for at := v.from; v.to == 0 || at < v.to; {
		b, err := r.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		at = b.Next()
		err = v.batch(b, f)
		b.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *view) batch(b *pipeline.Batch, f *filter.Filter) error {
	from, to := 0, len(b.Events)
	if b.Base < v.from {
		from = min(int(v.from-b.Base), to)
	}
	if v.to != 0 && b.Next() > v.to {
		to = max(from, int(v.to-b.Base))
	}
	runs := []pipeline.Run{{Batch: b, From: uint32(from), To: uint32(to)}}
	if f != nil {
		runs, _ = f.Select(b, from, to, runs[:0], nil)
	}
	var offsets []pipeline.Offset
	var events [][]byte
	for _, r := range runs {
		for i := int(r.From); i < int(r.To); i++ {
			if v.match != nil && !v.match(b, i) {
				continue
			}
			text, err := v.enc.Append(nil, b, i, r.As)
			if err != nil {
				text, _ = json.Marshal(map[string]any{"id": pipeline.EventID("", b.Offset(i)), "error": err.Error()})
			}
			offsets, events = append(offsets, b.Offset(i)), append(events, text)
		}
	}
	if len(events) == 0 {
		return nil
	}
	return v.show(offsets, events)
}

// Tail implements api.Backend.
func (s *Server) Tail(ctx context.Context, r *leatv1.TailRequest, send func([][]byte) error) error {
	v, err := s.viewOf(r.Name)
	if err != nil {
		return err
	}
	oldest, next := v.log.Bounds()
	v.from = next
	switch from := r.From.(type) {
	case *leatv1.TailRequest_Earliest:
		v.from = oldest
	case *leatv1.TailRequest_Offset:
		v.from = pipeline.Offset(from.Offset)
	case *leatv1.TailRequest_Time:
		if v.from, err = v.log.At(ctx, from.Time.AsTime()); err != nil {
			return err
		}
	}
	if r.NoFollow {
		if v.to = next; v.from >= next {
			return nil
		}
	}
	if len(r.Tables) > 0 || r.Filter != "" {
		if v.filter, err = s.compile(r.Tables, r.Filter); err != nil {
			return api.Errorf(api.Invalid, "filter: %w", err)
		}
	}
	if r.Key != "" {
		if v.match, err = matchKey(v.enc, r.Key); err != nil {
			return err
		}
	}
	v.show = func(_ []pipeline.Offset, events [][]byte) error { return send(events) }
	return readError(v.run(ctx))
}

// matchKey compares the identity of events with a JSON object.
func matchKey(enc *encode.Encoder, text string) (func(*pipeline.Batch, int) bool, error) {
	var want map[string]any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		return nil, api.Errorf(api.Invalid, `key %q: want a JSON object of the key's columns, as {"id":42}`, text)
	}
	return func(b *pipeline.Batch, i int) bool {
		key, _, err := enc.Key(b, i)
		var got map[string]any
		return err == nil && json.Unmarshal([]byte(key), &got) == nil && reflect.DeepEqual(got, want)
	}, nil
}

// Events implements api.Backend.
func (s *Server) Events(ctx context.Context, r api.EventsRequest, send func([]api.Event) error) error {
	s.mu.Lock()
	sub, known := s.cfg.Subscriptions[r.Subscription]
	s.mu.Unlock()
	if !known {
		return api.Errorf(api.NotFound, "no subscription %q", r.Subscription)
	}
	if r.Source != "" && r.Source != sub.Source {
		return api.Errorf(api.Invalid, "the event id is of source %q, subscription %q reads %q", r.Source, r.Subscription, sub.Source)
	}
	v, err := s.viewOf(r.Subscription)
	if err != nil {
		return err
	}
	_, v.from = v.log.Bounds()
	if r.After != nil {
		v.from = pipeline.Offset(*r.After) + 1
	}
	v.found = func() error { return send(nil) }
	var buf []api.Event
	v.show = func(offsets []pipeline.Offset, events [][]byte) error {
		buf = buf[:0]
		for i, o := range offsets {
			buf = append(buf, api.Event{Offset: uint64(o), ID: pipeline.EventID(sub.Source, o), JSON: events[i]})
		}
		return send(buf)
	}
	return readError(v.run(ctx))
}

// readError gives the errors of a reader their kind.
func readError(err error) error {
	var old *pipeline.TruncatedError
	switch {
	case errors.As(err, &old):
		return api.Errorf(api.Gone, "%w", err)
	case errors.Is(err, pipeline.ErrBeyondTail):
		return api.Errorf(api.Invalid, "%w", err)
	case errors.Is(err, pipeline.ErrClosed):
		return api.Errorf(api.Unavailable, "the log is being closed")
	}
	return err
}

// viewOf prepares a view of a source, or of a subscription with its filter and columns.
func (s *Server) viewOf(name string) (*view, error) {
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
	v := &view{}
	if isSub {
		source = sub.Source
		o = parts.Encoding(sub, publicURL, s.forms.Of)
		var err error
		if v.filter, err = parts.Filter(sub, s.forms.Of); err != nil {
			return nil, err
		}
	}
	o.Source = source
	v.enc = encode.JSON(o)
	log, err := s.engine.Log(source)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "%w", err)
	}
	v.log = log
	return v, nil
}
