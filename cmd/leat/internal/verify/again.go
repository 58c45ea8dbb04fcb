package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/snapshot"
)

// keysAtOnce are read from the source in one go.
const keysAtOnce = 500

// settle looks at the doubts again until each is decided, or moves.
func (v *run) settle(ctx context.Context) error {
	if err := v.each(func(c *comparison) error { return c.name(ctx) }); err != nil {
		return err
	}
	for range rounds {
		if v.doubts() == 0 {
			break
		}
		if err := v.again(ctx); err != nil {
			return err
		}
	}
	return v.each(func(c *comparison) error {
		c.report.Moving += uint64(len(c.doubts))
		return nil
	})
}

func (v *run) doubts() (n int) {
	for _, c := range v.tables {
		n += len(c.doubts)
	}
	return n
}

// again is one round.
func (v *run) again(ctx context.Context) error {
	// What the log holds by now is before the reads; what it gains up to the fence behind them may be beside them.
	_, now := v.o.Log.Bounds()
	from := v.end
	v.end = max(v.end, now)
	if err := v.fold(ctx, from, v.end, (*comparison).learn); err != nil {
		return err
	}
	// Where a replica is read, it has to have what the log has: it has once it has what is written now.
	if _, err := v.o.Fence(ctx); err != nil {
		return err
	}
	err := v.look(ctx, func(c *comparison, s snapshot.Session) (err error) {
		c.touched = map[uint64]bool{}
		c.found, err = c.look(ctx, s, c.table, "again")
		return err
	})
	if err != nil {
		return err
	}
	if v.o.Target != nil {
		if err := v.lookAtTarget(ctx); err != nil {
			return err
		}
	}
	if err := v.forward(ctx, (*comparison).touch); err != nil {
		return err
	}
	return v.each(func(c *comparison) error { return c.decideAll(ctx) })
}

// touch notes what changed since it was looked at.
func (c *comparison) touch(b *pipeline.Batch, i int, op pipeline.Op) error {
	if op == pipeline.OpTruncate {
		for key := range c.doubts {
			c.touched[key] = true
		}
	}
	if l, ok, err := c.event(b, i, op); err != nil {
		return err
	} else if ok && c.doubts[l.key] != nil {
		c.touched[l.key] = true
	}
	return c.learn(b, i, op)
}

func (c *comparison) decideAll(ctx context.Context) error {
	for _, key := range slices.Sorted(maps.Keys(c.doubts)) {
		if c.touched[key] {
			continue
		}
		l, in := c.found[key]
		decided, err := c.decide(ctx, c.doubts[key], l, in)
		if err != nil {
			return err
		}
		if decided {
			delete(c.doubts, key)
		}
	}
	c.found, c.touched = nil, nil
	return nil
}

// learn brings a doubt up to an event of its key.
func (c *comparison) learn(b *pipeline.Batch, i int, op pipeline.Op) error {
	if c.run.o.Target != nil {
		return nil
	}
	if op == pipeline.OpTruncate {
		for _, d := range c.doubts {
			d.known = false
		}
		return nil
	}
	l, ok, err := c.event(b, i, op)
	if err != nil || !ok {
		return err
	}
	d := c.doubts[l.key]
	if d == nil {
		return nil
	}
	if d.other.sums == nil || !d.known {
		d.other = line{key: l.key, gone: true, sums: make([]uint64, len(l.sums))}
	}
	d.other.merge(l)
	d.known = !l.gone
	return nil
}

// name finds the keys of doubts of which only the log knows. What left the log since it was read
// cannot be told any more.
func (c *comparison) name(ctx context.Context) error {
	first, _ := c.run.o.Log.Bounds()
	for key, d := range c.doubts {
		if d.raw != nil {
			continue
		}
		if pipeline.Offset(d.other.at) < first {
			c.report.Moving++
			delete(c.doubts, key)
			continue
		}
		err := c.at(ctx, d.other.at, func(b *pipeline.Batch, i int) (err error) {
			d.text = c.run.o.KeyText(b, i)
			d.raw, err = c.run.o.KeyOf(b.TableOf(i), image(b, i))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func image(b *pipeline.Batch, i int) []byte {
	if after := b.Bytes(b.Events[i].After); after != nil {
		return after
	}
	return b.Bytes(b.Events[i].Before)
}

// at shows the event at an offset.
func (c *comparison) at(ctx context.Context, o uint64, f func(b *pipeline.Batch, i int) error) error {
	r, err := c.run.o.Log.Read(pipeline.Offset(o))
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer r.Close()
	b, err := r.Next(ctx)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer b.Release()
	if pipeline.Offset(o) < b.Base || pipeline.Offset(o) >= b.Next() {
		return fmt.Errorf("event %d is not in the log any more", o)
	}
	return f(b, int(pipeline.Offset(o)-b.Base))
}

// look reads the doubts' rows.
func (c *comparison) look(ctx context.Context, s snapshot.Session, t snapshot.Table, phase string) (map[uint64]line, error) {
	found := map[uint64]line{}
	c.unseen = c.unseen[:0]
	keys := make([][]byte, 0, len(c.doubts))
	for _, d := range c.doubts {
		keys = append(keys, d.raw)
	}
	for done, some := 0, min(keysAtOnce, len(keys)); done < len(keys); {
		some = min(some, len(keys)-done)
		began := time.Now()
		if err := c.fetch(ctx, s, snapshot.Query{Table: t, Keys: keys[done : done+some], Limit: some, Bytes: chunkBytes}); err != nil {
			return nil, err
		}
		if c.chunk.More && some > 1 { // large rows
			some /= 2
			continue
		}
		took := time.Since(began)
		if c.chunk.Unseen != nil {
			c.unseen = append(c.unseen, c.chunk.Unseen)
		}
		_, err := c.chunkRows(func(l line, b *pipeline.Batch, i int) error {
			l.sums = slices.Clone(l.sums)
			found[l.key] = l
			if d := c.doubts[l.key]; d != nil {
				d.text = c.run.o.KeyText(b, i)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		done += some
		c.run.o.Progress(Progress{Table: c.report.Table, Phase: phase, Done: uint64(done), Rows: uint64(len(keys))})
		if err := c.run.o.Pace(ctx, took); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// lookAtTarget waits until the subscriber has what the source was read with, and reads the target's rows.
func (v *run) lookAtTarget(ctx context.Context) error {
	to, err := v.o.Fence(ctx)
	if err != nil {
		return err
	}
	if v.o.Settled != nil {
		if err := v.o.Settled(ctx, to); err != nil {
			return err
		}
	}
	return v.each(func(c *comparison) error {
		if len(c.doubts) == 0 {
			return nil
		}
		s, t, err := v.o.Target(ctx, c.table)
		if err != nil {
			return err
		}
		defer s.Close()
		rows, err := c.look(ctx, s, t, "target")
		if err != nil {
			return err
		}
		for key, d := range c.doubts {
			d.other, d.known = rows[key], false
			_, d.known = rows[key]
		}
		return nil
	})
}

// decide counts a doubt whose key did not change while it was looked at. False: the read did not see the transaction
// that changed it last, although its end stands in the log.
func (c *comparison) decide(ctx context.Context, d *doubt, source line, in bool) (bool, error) {
	diff := Difference{Key: d.text}
	switch {
	case !in && !d.known:
		return true, nil
	case in && d.known && c.same(&source, &d.other):
		c.equal(&source, &d.other)
		return true, nil
	case in && !d.known && c.run.o.Target == nil && !c.whole:
		c.report.Rows++
		c.report.Beyond++
		return true, nil
	}
	if early, err := c.early(ctx, d); err != nil || early {
		return false, err
	}
	switch {
	case in && !d.known:
		diff.Kind = "missing"
	case !in:
		diff.Kind = "extra"
	default:
		diff.Kind = "different"
		for i, name := range c.layout.names {
			if a, b := source.sums[i], d.other.sums[i]; a != b && a != unknown && b != unknown {
				diff.Columns = append(diff.Columns, name)
			}
		}
	}
	if in {
		c.report.Rows++
		r := c.rangeOf(&source)
		r.SourceRows, r.source = r.SourceRows+1, r.source+lineSum(&source)
	}
	if d.known {
		r := c.rangeOf(&d.other)
		r.OtherRows, r.rest = r.OtherRows+1, r.rest+lineSum(&d.other)
	}
	c.report.Different++
	if in && len(c.repair) < maxRepaired {
		c.repair = append(c.repair, d.raw)
	}
	if len(c.report.Differences) < maxListed {
		c.report.Differences = append(c.report.Differences, diff)
	}
	return true, nil
}

// early reports whether the last event of a doubt is of a transaction that the read did not see yet: committed in the
// source's log, but not yet for others, as while a synchronous standby is waited for.
func (c *comparison) early(ctx context.Context, d *doubt) (early bool, err error) {
	if len(c.unseen) == 0 || c.run.o.Target != nil || d.other.sums == nil {
		return false, nil
	}
	err = c.at(ctx, d.other.at, func(b *pipeline.Batch, i int) error {
		tx := b.Bytes(b.Txs[b.Events[i].Tx].ID)
		early = slices.ContainsFunc(c.unseen, func(unseen func([]byte) bool) bool { return unseen(tx) })
		return nil
	})
	return early, err
}
