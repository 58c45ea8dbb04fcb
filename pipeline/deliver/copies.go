package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// Copies is the optional capability of a Store to keep what parks hold once the log lets it go. What a method
// returned from is durable.
type Copies interface {
	// PutHeld keeps copies and the table versions that they refer to, all or none; of parks that are gone nothing.
	PutHeld(ctx context.Context, held []pipeline.Held, tables []pipeline.HeldTable) error
	// PutCopied keeps the Copied of parks, all or none; of those that are gone or begin elsewhere by now, nothing.
	PutCopied(ctx context.Context, parks []Park) error
	// Held lists a subscription's copies of a log's events in [from, to), in order, at most limit.
	Held(ctx context.Context, subscription, log string, from, to pipeline.Offset, limit int) ([]pipeline.Held, error)
	// HeldTable returns a table version that copies refer to; ok is false when there is none.
	HeldTable(ctx context.Context, log string, id, version uint32) (t pipeline.HeldTable, ok bool, err error)
	// HeldBytes is how large a subscription's copies are together, in bytes, and how many there are.
	HeldBytes(ctx context.Context, subscription string) (bytes int64, events uint64, err error)
}

const (
	// maxCopied bytes of copies of a subscription; what retention takes beyond them is listed as skipped.
	maxCopied = 1 << 30
	// copyBytes and copyEvents go into the store at once.
	copyBytes, copyEvents = 4 << 20, 1000
)

// ErrParksUnknown: the subscription has not read its parks yet.
var ErrParksUnknown = errors.New("parks are not known yet")

// KeepsCopies: parked keys do not need the log, see CopyHeld.
func (s *Subscription) KeepsCopies() bool {
	_, ok := s.cfg.Store.(Copies)
	return ok
}

// CopyHeld copies what parked keys hold below an offset into the store, so that retention may take it: redriven, it
// comes from there. Beyond 1 GiB of copies of a subscription it is listed as skipped instead. The subscriptions are of
// one log, which is read once for all; they may be paused. One call at a time, from any goroutine. It returns an error
// for each subscription; ErrParksUnknown, before Run has read them.
func CopyHeld(ctx context.Context, below pipeline.Offset, subs ...*Subscription) []error {
	errs := make([]error, len(subs))
	var all []*copier
	for i, s := range subs {
		c, err := s.newCopier(ctx, below)
		if c != nil {
			c.err = &errs[i]
			all = append(all, c)
		}
		errs[i] = err
	}
	if len(all) > 0 {
		copyAll(ctx, below, all)
	}
	for _, c := range all {
		if *c.err == nil {
			*c.err = c.end(ctx, below)
		}
		if *c.err != nil {
			*c.err = fmt.Errorf("copy what parked keys hold: %w", *c.err)
		}
	}
	return errs
}

// newCopier returns nil when nothing is to be copied.
func (s *Subscription) newCopier(ctx context.Context, below pipeline.Offset) (*copier, error) {
	if !s.parked.Load() {
		return nil, ErrParksUnknown
	}
	store, ok := s.cfg.Store.(Copies)
	parks := s.parks.uncopied(s.cfg.Name, below)
	if !ok || len(parks) == 0 {
		return nil, nil
	}
	c := &copier{cfg: &s.cfg, sub: s, store: store, parks: parks, from: below, keys: map[uint64]pipeline.Offset{}, one: map[pipeline.Offset]uint64{},
		seen: map[[2]uint32]bool{}, most: s.maxCopied}
	for _, p := range parks {
		if p.Single {
			c.one[p.From] = p.Hash
			c.from = min(c.from, p.From)
			continue
		}
		at := max(p.From, p.Copied)
		c.keys[p.Hash] = at
		c.from = min(c.from, at)
	}
	if s.cfg.Filter != nil {
		c.filter = s.cfg.Filter.New()
	}
	c.flushed = c.from
	var err error
	c.have, _, err = store.HeldBytes(ctx, s.cfg.Name)
	return c, err
}

// copyAll reads the log once for all.
func copyAll(ctx context.Context, below pipeline.Offset, all []*copier) {
	from := below
	for _, c := range all {
		from = min(from, c.from)
	}
	for from < below {
		err := copyFrom(ctx, &from, below, all)
		var gone *pipeline.TruncatedError
		if errors.As(err, &gone) {
			from = gone.Oldest
			for _, c := range all {
				if to := min(from, below); *c.err == nil && c.from < to {
					*c.err = c.skip(ctx, c.from, to, "retention removed it before it could be copied")
					c.from = to
				}
			}
			continue
		}
		if err != nil {
			for _, c := range all {
				if *c.err == nil {
					*c.err = err
				}
			}
			return
		}
	}
}

func copyFrom(ctx context.Context, from *pipeline.Offset, below pipeline.Offset, all []*copier) error {
	r, err := all[0].cfg.Log.Read(*from)
	if err != nil {
		return err
	}
	defer r.Close()
	for *from < below {
		b, err := r.Next(ctx)
		if err != nil {
			return err
		}
		for _, c := range all {
			if *c.err == nil && c.from < below {
				*c.err = c.take(ctx, b, below)
			}
		}
		*from = max(*from, b.Next())
		b.Release()
	}
	return nil
}

// uncopied lists the parks that hold something below an offset of which there is no copy yet. Of each only what
// names it, From as it is on disk, and Copied.
func (p *parks) uncopied(subscription string, below pipeline.Offset) []Park {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Park
	p.all(func(k *parked) {
		copied := pipeline.Offset(k.copied.Load())
		if k.interval == nil && max(copied, k.stored) < below && (!k.Single || copied <= k.stored) {
			out = append(out, Park{Subscription: subscription, Hash: k.Hash, Single: k.Single, From: k.stored, Copied: copied})
		}
	})
	slices.SortFunc(out, func(a, b Park) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Hash, b.Hash)) })
	return out
}

// noteCopied notes what is durable; parks that are others by now stay as they are.
func (p *parks) noteCopied(parks []Park) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range parks {
		k := p.keys[c.Hash]
		if c.Single {
			k = p.one[c.From]
		}
		if k != nil && k.stored == c.From {
			k.copied.Store(uint64(c.Copied))
		}
	}
}

// copier copies for one subscription: events of keys from their offsets on, and single events by offset, with their hash.
type copier struct {
	cfg    *Config
	sub    *Subscription
	store  Copies
	err    *error
	parks  []Park
	from   pipeline.Offset // all below is copied or listed
	keys   map[uint64]pipeline.Offset
	one    map[pipeline.Offset]uint64
	filter *filter.Filter
	runs   []pipeline.Run
	fails  []filter.Failure

	have, most int64 // bytes of copies
	held       []pipeline.Held
	tables     []pipeline.HeldTable
	seen       map[[2]uint32]bool
	size       int
	flushed    pipeline.Offset // what was picked below is durable
}

// take copies what of a batch is held.
func (c *copier) take(ctx context.Context, b *pipeline.Batch, below pipeline.Offset) error {
	from, to := max(c.from, b.Base), min(below, b.Next())
	if from >= to {
		return nil
	}
	if err := c.pick(b, from, to); err != nil {
		return err
	}
	if c.have+int64(c.size) > c.most {
		c.held, c.tables, c.size = nil, nil, 0
		err := c.skip(ctx, c.flushed, below, fmt.Sprintf("copies of what parked keys hold are full (%d MiB)", c.most>>20))
		c.from = below
		return err
	}
	c.from = to
	if c.size >= copyBytes || len(c.held) >= copyEvents {
		return c.flush(ctx)
	}
	return nil
}

// end makes durable what was copied.
func (c *copier) end(ctx context.Context, below pipeline.Offset) error {
	if err := c.flush(ctx); err != nil {
		return err
	}
	for i := range c.parks {
		c.parks[i].Copied = below
	}
	if err := c.store.PutCopied(ctx, c.parks); err != nil {
		return err
	}
	c.sub.parks.noteCopied(c.parks)
	return nil
}

// holds reports whether anything of a batch may be held.
func (c *copier) holds(b *pipeline.Batch, from, to pipeline.Offset) bool {
	for i := int(from - b.Base); i < int(to-b.Base); i++ {
		if at, ok := c.keys[b.Events[i].Hash]; ok && b.Offset(i) >= at {
			return true
		}
		if len(c.one) > 0 {
			if _, ok := c.one[b.Offset(i)]; ok {
				return true
			}
		}
	}
	return false
}

func (c *copier) flush(ctx context.Context) error {
	if len(c.held) == 0 {
		return nil
	}
	if err := c.store.PutHeld(ctx, c.held, c.tables); err != nil {
		return err
	}
	c.have += int64(c.size)
	c.flushed = c.from
	c.held, c.tables, c.size = c.held[:0], c.tables[:0], 0
	return nil
}

// pick takes copies of what the keys hold of a batch.
func (c *copier) pick(b *pipeline.Batch, from, to pipeline.Offset) error {
	if !b.Meant(c.cfg.Name) || !c.holds(b, from, to) {
		return nil
	}
	c.runs = c.runs[:0]
	if c.filter != nil {
		c.runs, c.fails = c.filter.Select(b, int(from-b.Base), int(to-b.Base), c.runs, c.fails[:0])
	} else {
		c.runs = append(c.runs, pipeline.Run{From: uint32(from - b.Base), To: uint32(to - b.Base)})
	}
	for _, r := range c.runs {
		for i := int(r.From); i < int(r.To); i++ {
			o := b.Offset(i)
			id := pipeline.ParkID{Hash: b.Events[i].Hash}
			if at, ok := c.keys[id.Hash]; !ok || o < at {
				if _, ok := c.one[o]; !ok {
					continue
				}
				id.Single = o
			}
			if err := c.add(b, i, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *copier) add(b *pipeline.Batch, i int, id pipeline.ParkID) error {
	block, err := heldBlock(b, i)
	if err != nil {
		return fmt.Errorf("event at %d: %w", b.Offset(i), err)
	}
	c.held = append(c.held, pipeline.Held{Subscription: c.cfg.Name, Park: id, Log: c.cfg.Log.ID(), Offset: b.Offset(i), Block: block})
	c.size += len(block)
	t := b.TableOf(i)
	if t == nil || c.seen[[2]uint32{t.ID, t.Version}] {
		return nil
	}
	shape, err := record.AppendSchema(nil, t)
	if err != nil {
		return fmt.Errorf("table %s: %w", t.Subject(), err)
	}
	c.tables = append(c.tables, pipeline.HeldTable{Log: c.cfg.Log.ID(), ID: t.ID, Version: t.Version, Shape: shape})
	c.seen[[2]uint32{t.ID, t.Version}] = true
	return nil
}

func (c *copier) skip(ctx context.Context, from, to pipeline.Offset, why string) error {
	if from >= to {
		return nil
	}
	s := Skip{Subscription: c.cfg.Name, Time: time.Now(), Ranges: []pipeline.OffsetRange{{From: from, To: to}}, Reason: why + ": only the events of parked keys"}
	if err := c.cfg.Store.PutSkip(ctx, s); err != nil {
		return fmt.Errorf("list what is skipped: %w", err)
	}
	c.cfg.Observer.Warned("subscription "+c.cfg.Name, fmt.Sprintf("offsets %d to %d: %s: what parked keys hold in there is skipped and listed", from, to-1, why),
		pipeline.BringRows+"; redrive or discard sooner: `leat parked "+c.cfg.Name+"`")
	return nil
}

// heldBlock is a batch of event i alone, or of both halves when it is the second of a key change.
func heldBlock(b *pipeline.Batch, i int) ([]byte, error) {
	from := i
	if i > 0 && insertHalf(&b.Events[i]) {
		from--
	}
	m := pipeline.NewBatch()
	defer m.Release()
	m.Base = b.Offset(from)
	tx := b.Txs[b.Events[i].Tx]
	seq, _ := b.Seq(from)
	_, last := b.Seq(i)
	m.Txs = append(m.Txs, pipeline.Tx{ID: put(m, b, tx.ID), Position: put(m, b, tx.Position), Time: tx.Time, Before: seq - 1, Ends: last})
	for n := from; n <= i; n++ {
		e := b.Events[n]
		if t := b.TableOf(n); t != nil {
			at, err := m.TableIndex(t)
			if err != nil {
				return nil, err
			}
			e.Table = at
		}
		e.Tx, e.Key, e.Before, e.After = 0, put(m, b, e.Key), put(m, b, e.Before), put(m, b, e.After)
		m.Events = append(m.Events, e)
	}
	return record.Append(nil, m, nil, &record.Header{Base: m.Base})
}

// put copies a span of b into m.
func put(m, b *pipeline.Batch, s pipeline.Span) pipeline.Span {
	if !s.Present() {
		return pipeline.Nowhere
	}
	return m.Put(b.Bytes(s))
}

// fromCopies hands over what the store has of what retention took below an offset, and lists what nobody has.
func (p *pass) fromCopies(ctx context.Context, c *Config, from *pipeline.Offset, to pipeline.Offset) error {
	began := *from
	if store, ok := c.Store.(Copies); ok {
		d := heldTables{store: store, log: c.Log.ID(), known: map[[2]uint32]*schemas.Table{}}
		for *from < to {
			page, err := store.Held(ctx, c.Name, d.log, *from, to, copyEvents/10)
			if err != nil {
				return err
			}
			if len(page) == 0 {
				break
			}
			for _, h := range page {
				if err := p.budget.wait(ctx, true); err != nil {
					return err
				}
				b, err := d.decode(ctx, h)
				if err != nil {
					return err
				}
				if err := p.hand(ctx, b, h.Offset, h.Offset+1); err != nil {
					return err
				}
				*from = h.Offset + 1
			}
		}
	}
	if lost := max(began, p.copied()); lost < to {
		if err := p.lost(ctx, c, lost, to); err != nil {
			return err
		}
	}
	*from = max(*from, to)
	return nil
}

// copied is the offset below which the store has all that the keys hold.
func (p *pass) copied() pipeline.Offset {
	p.parks.mu.Lock()
	defer p.parks.mu.Unlock()
	least := noOffset
	if p.hold != nil { // there are none of what it holds
		least = p.at
	}
	p.parks.all(func(k *parked) {
		switch {
		case !k.Redrive:
		case k.Single && pipeline.Offset(k.copied.Load()) > k.From:
		default:
			least = min(least, max(k.stored, pipeline.Offset(k.copied.Load())))
		}
	})
	return least
}

// heldTables decodes copies.
type heldTables struct {
	store Copies
	log   string
	known map[[2]uint32]*schemas.Table
}

func (d *heldTables) decode(ctx context.Context, h pipeline.Held) (*pipeline.Batch, error) {
	wrong := func(err error) error {
		return fmt.Errorf("the copy of event %d is damaged: %w; discard its key, or restore a backup of the state", h.Offset, err)
	}
	header, _, err := record.Open(h.Block)
	if err != nil {
		return nil, wrong(err)
	}
	var failed error
	b := pipeline.NewBatchOver(func(*pipeline.Batch) {}) // its arena is the block's
	_, err = record.Decode(h.Block, &header, b, func(id, version uint32) *schemas.Table {
		t, err := d.table(ctx, id, version)
		failed = errors.Join(failed, err)
		return t
	}, nil)
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, wrong(err)
	}
	return b, nil
}

// table returns nil for one that is not described.
func (d *heldTables) table(ctx context.Context, id, version uint32) (*schemas.Table, error) {
	if t := d.known[[2]uint32{id, version}]; t != nil {
		return t, nil
	}
	h, ok, err := d.store.HeldTable(ctx, d.log, id, version)
	if err != nil || !ok {
		return nil, err
	}
	t, err := record.DecodeSchema(h.Shape)
	if err != nil {
		return nil, fmt.Errorf("a table of copies is damaged: %w", err)
	}
	d.known[[2]uint32{id, version}] = t
	return t, nil
}
