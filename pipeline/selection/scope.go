// Package selection picks events of a log: what a job's scope, or a question, means of what a subscription gets.
package selection

import (
	"bytes"
	"fmt"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Scope is a compiled pipeline.Scope. Safe for concurrent use.
type Scope struct {
	tables filter.Tables
	byName bool
	expr   *filter.Program // nil: everything passes
	keys   map[string]map[string]bool
	ranges []pipeline.KeyInterval
}

// Compile compiles a scope; form reads rows. The error says what of it is wrong.
func Compile(s pipeline.Scope, form func(*schemas.Table) *cell.Form) (*Scope, error) {
	c := &Scope{byName: len(s.Tables) > 0, ranges: s.Ranges}
	var err error
	if c.tables, err = filter.ParseTables(s.Tables); err != nil {
		return nil, err
	}
	if s.Filter != "" {
		if c.expr, err = filter.Compile(filter.Options{Expr: s.Filter, Form: form}); err != nil {
			return nil, fmt.Errorf("filter: %w", err)
		}
	}
	for _, k := range s.Keys {
		if c.keys == nil {
			c.keys = map[string]map[string]bool{}
		}
		if c.keys[k.Space] == nil {
			c.keys[k.Space] = map[string]bool{}
		}
		c.keys[k.Space][string(k.Encoded)] = true
	}
	for _, r := range s.Ranges {
		if r.End != nil && bytes.Compare(r.Start, r.End) >= 0 {
			return nil, fmt.Errorf("a key range of space %q ends where it starts or before", r.Space)
		}
	}
	return c, nil
}

// ByKey: it names keys, so that what has none is not meant.
func (c *Scope) ByKey() bool { return c.keys != nil || len(c.ranges) > 0 }

// Filters: it has an expression, so that what of a key is meant is known only once its events are read.
func (c *Scope) Filters() bool { return c.expr != nil }

// HasSpace reports whether keys of the table's key space are named.
func (c *Scope) HasSpace(t *schemas.Table) bool {
	if t == nil {
		return false
	}
	if c.keys[t.KeySpace] != nil {
		return true
	}
	for _, r := range c.ranges {
		if r.Space == t.KeySpace {
			return true
		}
	}
	return false
}

// HasKey reports whether the event's key is meant.
func (c *Scope) HasKey(b *pipeline.Batch, i int) bool {
	if !c.ByKey() {
		return true
	}
	t := b.TableOf(i)
	if t == nil || !b.Events[i].Key.Present() {
		return false
	}
	return c.Names(t.KeySpace, b.Bytes(b.Events[i].Key))
}

// Names reports whether a key is one of those named.
func (c *Scope) Names(space string, key []byte) bool {
	if c.keys[space][string(key)] {
		return true
	}
	for _, r := range c.ranges {
		if r.Space == space && bytes.Compare(key, r.Start) >= 0 && (r.End == nil || bytes.Compare(key, r.End) < 0) {
			return true
		}
	}
	return false
}

// HasTable reports whether the event's table is meant; what belongs to none is, when no tables are named.
func (c *Scope) HasTable(t *schemas.Table) bool {
	if t == nil {
		return !c.byName
	}
	return c.tables.Match(t.Schema, t.Name)
}

// Selector picks what a scope means of a subscription's events. Not for concurrent use.
type Selector struct {
	name        string // of the subscription
	scope       *Scope
	own, narrow *filter.Filter // nil: everything passes
	runs, some  []pipeline.Run
	fails       []filter.Failure
	last        *schemas.Table
	in          bool
	// followed keys were met below until: from there on all of their events are meant. nil: each event by itself.
	followed map[uint64]struct{}
	until    pipeline.Offset
	one      bool // all is one key
	failed   uint64
	why      string
}

// maxFollowed keys are told apart; beyond them all are followed.
const maxFollowed = 1 << 20

// Follow makes it choose keys instead of events: from a key's first event that is meant, below until, on, all of
// them in tables that are. one: all is one key.
func (s *Selector) Follow(one bool, until pipeline.Offset) {
	s.followed, s.until, s.one = map[uint64]struct{}{}, until, one
}

// follows reports whether the event's key is followed, which begins when it is met.
func (s *Selector) follows(b *pipeline.Batch, i uint32, met bool) bool {
	if len(s.followed) > maxFollowed {
		return true
	}
	hash := b.Events[i].Hash
	if s.one {
		hash = 0
	}
	if met && b.Offset(int(i)) < s.until {
		s.followed[hash] = struct{}{}
		return true
	}
	_, ok := s.followed[hash]
	return ok
}

// New returns a selector of what of a subscription's events, by its own filter (nil: everything), is in the
// scope.
func New(subscription string, own *filter.Program, scope *Scope) *Selector {
	s := &Selector{name: subscription, scope: scope}
	if own != nil {
		s.own = own.New()
	}
	if scope.expr != nil {
		s.narrow = scope.expr.New()
	}
	return s
}

// Select appends to runs what of b.Events[from:to] is meant, in order. What the subscription's own filter fails
// on is left out: it became a dead letter when it was read live. What the scope's fails on, or proves to have
// left it, is meant: rather too much is delivered again.
func (s *Selector) Select(b *pipeline.Batch, from, to int, runs []pipeline.Run) []pipeline.Run {
	if !b.Meant(s.name) {
		return runs
	}
	if s.own == nil {
		return s.Narrow(b, pipeline.Run{Batch: b, From: uint32(from), To: uint32(to)}, runs)
	}
	s.runs, s.fails = s.own.Select(b, from, to, s.runs[:0], s.fails[:0])
	for _, r := range s.runs {
		runs = s.Narrow(b, r, runs)
	}
	return runs
}

// Failed is on how many events the scope's filter failed so far, and why on the first.
func (s *Selector) Failed() (n uint64, why string) { return s.failed, s.why }

// Narrow appends what of the run is in the scope.
func (s *Selector) Narrow(b *pipeline.Batch, r pipeline.Run, runs []pipeline.Run) []pipeline.Run {
	if s.narrow == nil && !s.scope.byName && !s.scope.ByKey() && s.followed == nil {
		return append(runs, r)
	}
	if s.narrow != nil {
		s.some, s.fails = s.narrow.Select(b, int(r.From), int(r.To), s.some[:0], s.fails[:0])
		if s.failed += uint64(len(s.fails)); s.why == "" && len(s.fails) > 0 {
			s.why = s.fails[0].Reason
		}
	}
	first, run, fail := len(runs), 0, 0
	for i := r.From; i < r.To; i++ {
		passes := true
		if s.narrow != nil {
			for run < len(s.some) && s.some[run].To <= i {
				run++
			}
			for fail < len(s.fails) && s.fails[fail].Index < i {
				fail++
			}
			passes = run < len(s.some) && s.some[run].From <= i || fail < len(s.fails) && s.fails[fail].Index == i
			if !passes && s.followed == nil {
				continue
			}
		}
		if t := b.TableOf(int(i)); s.scope.byName {
			if t != s.last || t == nil {
				s.last, s.in = t, s.scope.HasTable(t)
			}
			if !s.in {
				continue
			}
		}
		if !s.scope.HasKey(b, int(i)) {
			continue
		}
		if s.followed != nil && !s.follows(b, i, passes) {
			continue
		}
		if n := len(runs); n > first && runs[n-1].To == i {
			runs[n-1].To++
			continue
		}
		runs = append(runs, pipeline.Run{Batch: b, From: i, To: i + 1, As: r.As})
	}
	return runs
}
