package mysql

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/sources/mysql/internal/chunks"
	"github.com/leat-cdc/leat/sources/mysql/internal/event"
)

// signal reads the rows of the signal table, which are watermarks and never events.
type signal struct {
	layout *binlog.Layout
	walk   func([]byte, []cell.Ref, int) ([]cell.Ref, error)
	buf    []byte
	refs   []cell.Ref
}

// newSignal returns nil for a table that has not the columns of a signal table.
func newSignal(m *binlog.TableMap) *signal {
	t := &schemas.Table{Schema: m.Schema, Name: m.Table, Wire: schemas.WireBinlog}
	for _, c := range m.Columns {
		t.Columns = append(t.Columns, schemas.Column{Type: schemas.Type{Code: c.Code, Meta: c.Meta}})
	}
	layout, err := binlog.NewLayout(t)
	if err != nil || len(t.Columns) <= chunks.SignalID {
		return nil
	}
	return &signal{layout: layout, walk: binlog.Form(t).Walk}
}

// id takes the watermark's name out of a row image.
func (g *signal) id(present, row []byte) string {
	g.buf = append(append(append(g.buf[:0], 1), present...), row...)
	var err error
	if g.refs, err = g.walk(g.buf, g.refs, chunks.SignalID+1); err != nil {
		return ""
	}
	return string(g.refs[chunks.SignalID].Of(g.buf))
}

// signalled notes the watermarks of a rows event of the signal table; they stand where its transaction ends.
func (r *reader) signalled(g *signal, h event.Header, body []byte) error {
	ev, err := event.ReadRows(h.Type, body)
	if err != nil {
		return err
	}
	if ev.Compressed {
		if ev.Body, err = r.inflate.Inflate(ev.Body, maxEvent); err != nil {
			return err
		}
	}
	if ev.Kind != event.Write && ev.Kind != event.Update {
		return nil
	}
	size := (ev.Columns + 7) / 8
	prefix := r.src.cfg.Name + "/"
	for b := ev.Body; len(b) > 0; {
		present := ev.Present
		n, err := g.layout.RowLen(b, present)
		if err == nil && ev.Kind == event.Update {
			b, present = b[n:], ev.PresentAfter
			n, err = g.layout.RowLen(b, present)
		}
		if err != nil || n == 0 {
			return nil // it is not the table that we made: its rows say nothing
		}
		if id, ok := strings.CutPrefix(g.id(present[:size], b[:n]), prefix); ok && id != "" {
			r.tx.marks = append(r.tx.marks, id)
		}
		b = b[n:]
	}
	return nil
}

// marked puts a watermark behind all that the batch holds.
func (r *reader) marked(id string) {
	r.b.Watermarks = append(r.b.Watermarks, pipeline.Watermark{ID: id, Event: uint32(len(r.b.Events))})
}

// Cut implements [snapshot.Cutter].
func (st *stream) Cut(on bool) {
	if on {
		st.src.cutting.Add(1)
	} else {
		st.src.cutting.Add(-1)
	}
}

// awaited are watermarks that are places of the binlog, for servers that Leat may not write to.
type awaited struct {
	some atomic.Bool // there are some; asked once per transaction
	wake chan struct{}

	mu   sync.Mutex
	open bool // a stream is; guarded by mu, as what follows
	list []*awaiting
}

type awaiting struct {
	id     string
	at     chunks.Place
	stands chan chunks.Place // where it stands, or will
	told   bool
}

// await puts a watermark into the stream at a place, or where the stream stands if that is further.
func (s *Source) await(ctx context.Context, id string, at chunks.Place) (chunks.Place, error) {
	a := &s.awaited
	w := &awaiting{id: id, at: at, stands: make(chan chunks.Place, 1)}
	a.mu.Lock()
	if !a.open {
		a.mu.Unlock()
		return at, transient("no_stream", "mark a place of the binlog", errClosed)
	}
	a.list = append(a.list, w)
	a.some.Store(true)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // it was woken already
	}
	select {
	case p, ok := <-w.stands:
		if !ok {
			return at, transient("no_stream", "mark a place of the binlog", errClosed)
		}
		return p, nil
	case <-ctx.Done():
		return at, ctx.Err()
	}
}

// streams tells whether there is a stream that watermarks can come in.
func (a *awaited) streams(open bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open = open
	for _, w := range a.list {
		if !w.told {
			close(w.stands)
		}
	}
	a.list = nil
	a.some.Store(false)
}

// surface marks the places that the stream has reached.
func (r *reader) surface() {
	a := &r.src.awaited
	if !a.some.Load() || r.tx.open || r.scan || r.file == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	here := chunks.Place{File: r.file, Pos: max(r.pos, r.passed)}
	kept := a.list[:0]
	for _, w := range a.list {
		reached := !before(here.File, here.Pos, w.at.File, w.at.Pos)
		if !w.told {
			at := w.at
			if reached {
				at = here
			}
			w.stands <- at
			w.told = true
		}
		if reached {
			r.marked(w.id)
		} else {
			kept = append(kept, w)
		}
	}
	clear(a.list[len(kept):])
	a.list = kept
	a.some.Store(len(kept) > 0)
}
