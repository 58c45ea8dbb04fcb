package deliver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// read is the goroutine of one round.
func (p *pass) read(ctx context.Context, c *Config, from, to pipeline.Offset) {
	err := p.each(ctx, c, &from, to)
	for gone := (*pipeline.TruncatedError)(nil); ctx.Err() == nil && errors.As(err, &gone); {
		if err = p.fromCopies(ctx, c, &from, min(gone.Oldest, to)); err == nil {
			err = p.each(ctx, c, &from, to)
		}
	}
	if ctx.Err() != nil {
		err = nil
	}
	p.arrived <- passed{err: err} // the loop takes it, or dropPass
}

func (p *pass) each(ctx context.Context, c *Config, from *pipeline.Offset, to pipeline.Offset) error {
	if *from >= to {
		return nil
	}
	lr, err := c.Log.Read(*from)
	if err != nil {
		return err
	}
	defer lr.Close()
	for read := 1; *from < to; read++ {
		if err := p.budget.wait(ctx, true); err != nil {
			return err
		}
		b, err := lr.Next(ctx)
		if err != nil {
			return err
		}
		next := max(*from, b.Next())
		if err := p.hand(ctx, b, max(*from, b.Base), min(to, next)); err != nil { // and b is no longer ours
			return err
		}
		*from = next
		if read%passMark != 0 {
			continue
		}
		select {
		case p.arrived <- passed{upTo: min(*from, to)}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// hand sends what the keys hold of a batch, whose reference it takes over.
func (p *pass) hand(ctx context.Context, b *pipeline.Batch, from, to pipeline.Offset) error {
	it, err := p.item(ctx, b, from, to)
	if err != nil || it == nil {
		b.Release()
		return err
	}
	select {
	case p.arrived <- passed{it: it}:
		return nil
	case <-ctx.Done():
		it.release(p.budget, false)
		return ctx.Err()
	}
}

// item picks what the keys hold of a batch; nil when that is nothing.
func (p *pass) item(ctx context.Context, b *pipeline.Batch, from, to pipeline.Offset) (*item, error) {
	if from >= to || !b.Meant(p.name) {
		return nil, nil
	}
	it := items.Get().(*item)
	lo := max(0, int(from-b.Base)-1) // an insert half looks at its delete
	if p.filter != nil {
		// What the filter fails on became a dead letter when it was read live.
		it.selected, p.fails = p.filter.Select(b, lo, int(to-b.Base), it.selected, p.fails[:0])
	} else {
		it.selected = append(it.selected, pipeline.Run{Batch: b, From: uint32(lo), To: uint32(to - b.Base)})
	}
	p.clip(b, it.selected)
	clip := 0
	for _, r := range it.selected {
		for ev := r.From; ev < r.To; ev++ {
			o := b.Offset(int(ev))
			for clip < len(p.clipped) && p.clipped[clip].To <= ev {
				clip++
			}
			if o < from {
				continue
			}
			at, held := p.keys[b.Events[ev].Hash]
			if held = held && at <= o; !held {
				_, held = p.one[o]
			}
			if !held && len(p.ranges) > 0 {
				held = p.holds(b, int(ev))
			}
			if !held && p.hold != nil && o >= p.at {
				held = o >= p.live && p.hold.covers(b, int(ev)) || clip < len(p.clipped) && p.clipped[clip].From <= ev
			}
			if held {
				it.runs = append(it.runs, pipeline.Run{Batch: b, From: ev, To: ev + 1, As: r.As})
				it.left++
			}
		}
	}
	if it.left == 0 {
		it.release(p.budget, false)
		return nil, nil
	}
	size := int64(b.Size())
	if err := p.budget.take(ctx, size, true); err != nil {
		it.release(p.budget, false)
		return nil, err
	}
	it.pass, it.batch, it.next, it.size = true, b, min(to, b.Next()), size
	return it, nil
}

// clip finds what of the hold's window is in runs.
func (p *pass) clip(b *pipeline.Batch, runs []pipeline.Run) {
	p.clipped = p.clipped[:0]
	if p.hold == nil || b.Base >= p.live {
		return
	}
	for _, r := range runs {
		if r.To = uint32(min(b.Offset(int(r.To)), p.live) - b.Base); r.From < r.To {
			p.clipped = p.only.Narrow(b, r, p.clipped)
		}
	}
}

// lost lists what retention took of what parked keys held.
func (p *pass) lost(ctx context.Context, c *Config, from, oldest pipeline.Offset) error {
	s := Skip{Subscription: c.Name, Time: time.Now(), Ranges: []pipeline.OffsetRange{{From: from, To: oldest}},
		Reason: "retention removed it before parked keys were redriven: only their events"}
	if err := c.Store.PutSkip(ctx, s); err != nil {
		return fmt.Errorf("list what is skipped: %w", err)
	}
	c.Observer.Warned("subscription "+c.Name, fmt.Sprintf("offsets %d to %d were removed by retention before %d parked keys and %d ranges that paused were redriven: their events in there are skipped and listed",
		from, oldest-1, len(p.keys)+len(p.one), len(p.ranges)), pipeline.BringRows+"; redrive sooner, or give the log more retention (log.retention)")
	return nil
}
