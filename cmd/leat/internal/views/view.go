// Package views looks into logs for people and programs that move no cursor: it decides what of a log they see, in
// which form, and how much at once.
package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/sinks/encode"
)

// View is a way through a log that moves no cursor.
type View struct {
	Log    pipeline.Log
	Source string // whose log it is
	From   pipeline.Offset
	To     pipeline.Offset // 0 = follow
	// Filter, nil = everything; and of rows of snapshots those for the subscription For, empty = all.
	Filter *filter.Program
	For    string
	// Asked is what a person typed: it narrows that. An event that it fails on is shown with why. Nil = everything.
	Asked *filter.Program
	Enc   *encode.Encoder
	Match func(b *pipeline.Batch, i int) bool // nil = everything
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
	p := picker{}
	if v.Filter != nil {
		p.own = v.Filter.New()
	}
	if v.Asked != nil {
		p.asked = v.Asked.New()
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
		err = v.batch(b, &p)
		b.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *View) batch(b *pipeline.Batch, p *picker) error {
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
	var offsets []pipeline.Offset
	var events [][]byte
	for _, e := range p.pick(b, from, to) {
		if v.Match != nil && !v.Match(b, e.i) {
			continue
		}
		text, err := []byte(nil), e.err
		if err == nil {
			text, err = v.Enc.Append(nil, b, e.i, e.as)
		}
		if err != nil {
			text, _ = json.Marshal(map[string]any{"id": pipeline.EventID(v.Source, b.Offset(e.i)), "error": err.Error()})
		}
		offsets, events = append(offsets, b.Offset(e.i)), append(events, text)
	}
	if len(events) == 0 {
		return nil
	}
	return v.Show(offsets, events)
}

// picked is an event that is seen, as what, or why that cannot be told.
type picked struct {
	i   int
	as  pipeline.Op
	err error
}

// picker applies a subscription's own filter, and what a person asked for; both may be nil.
type picker struct{ own, asked *filter.Filter }

// pick returns what is seen of b.Events[from:to], in order.
func (p *picker) pick(b *pipeline.Batch, from, to int) (all []picked) {
	runs := []pipeline.Run{{Batch: b, From: uint32(from), To: uint32(to)}}
	if p.own != nil {
		runs, _ = p.own.Select(b, from, to, runs[:0], nil)
	}
	for _, own := range runs {
		some := []pipeline.Run{own}
		var fails []filter.Failure
		if p.asked != nil {
			some, fails = p.asked.Select(b, int(own.From), int(own.To), nil, nil)
		}
		for _, r := range some {
			for i := r.From; i < r.To; i++ {
				all = append(all, picked{i: int(i), as: max(own.As, r.As)}) // one of them is OpNone, or both are the same
			}
		}
		for _, f := range fails {
			all = append(all, picked{i: int(f.Index), err: fmt.Errorf("the filter fails on it: %s", f.Reason)})
		}
	}
	slices.SortFunc(all, func(a, b picked) int { return a.i - b.i })
	return all
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
