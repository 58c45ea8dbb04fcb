// Package views looks into logs for people and programs that move no cursor: it decides what of a log they see, in
// which form, and how much at once.
package views

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/sinks/encode"
)

// View is a way through a log that moves no cursor.
type View struct {
	Log  pipeline.Log
	From pipeline.Offset
	To   pipeline.Offset // 0 = follow
	// Filter, nil = everything; and of rows of snapshots those for the subscription For, empty = all.
	Filter *filter.Program
	For    string
	Enc    *encode.Encoder
	Match  func(b *pipeline.Batch, i int) bool // nil = everything
	// Show takes what was selected of one batch; the slices are used again afterwards.
	Show func(offsets []pipeline.Offset, events [][]byte) error
	// Found, when set, is called once the place to begin at was found.
	Found func() error
}

// Run reads until ctx ends (nil), the end is reached (nil) or Show fails.
func (v *View) Run(ctx context.Context) error {
	r, err := v.Log.Read(v.From)
	if err != nil {
		return err
	}
	defer r.Close()
	if v.Found != nil {
		if err := v.Found(); err != nil {
			return err
		}
	}
	var f *filter.Filter
	if v.Filter != nil {
		f = v.Filter.New()
	}
	for at := v.From; v.To == 0 || at < v.To; {
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

func (v *View) batch(b *pipeline.Batch, f *filter.Filter) error {
	if v.For != "" && !b.Meant(v.For) {
		return nil
	}
	from, to := 0, len(b.Events)
	if b.Base < v.From {
		from = min(int(v.From-b.Base), to)
	}
	if v.To != 0 && b.Next() > v.To {
		to = max(from, int(v.To-b.Base))
	}
	runs := []pipeline.Run{{Batch: b, From: uint32(from), To: uint32(to)}}
	if f != nil {
		runs, _ = f.Select(b, from, to, runs[:0], nil)
	}
	var offsets []pipeline.Offset
	var events [][]byte
	for _, r := range runs {
		for i := int(r.From); i < int(r.To); i++ {
			if v.Match != nil && !v.Match(b, i) {
				continue
			}
			text, err := v.Enc.Append(nil, b, i, r.As)
			if err != nil {
				text, _ = json.Marshal(map[string]any{"id": pipeline.EventID("", b.Offset(i)), "error": err.Error()})
			}
			offsets, events = append(offsets, b.Offset(i)), append(events, text)
		}
	}
	if len(events) == 0 {
		return nil
	}
	return v.Show(offsets, events)
}

// Error gives the errors of a reader their kind.
func Error(err error) error {
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
