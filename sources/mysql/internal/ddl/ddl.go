// Package ddl keeps what statements did to a table until its next rows show the shape that came of them, and
// knows the tables by which gh-ost and pt-online-schema-change change another one.
package ddl

import (
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/change"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

// maxText bounds what is kept of a table's statements, in bytes.
const maxText = 64 << 10

// Pending are the statements about a table since its last table map. The zero Pending is none.
type Pending struct {
	texts    []string
	bytes    int
	seen     bool
	values   bool // a new column may begin with a value
	converts int
	absent   bool // no table had the name
	created  bool // by a statement: all its rows are events
	filled   bool // rows came
	replaced bool // the rows are others now, without events
	unsure   bool // statements may have been missed
}

// Absent is what is pending when a table is gone.
func Absent() *Pending { return &Pending{absent: true} }

// Add notes a statement.
func (p *Pending) Add(text string, s statement.Statement) {
	p.say(text)
	p.seen = p.seen || s.Kind != statement.Create
	p.created = p.created || s.Kind == statement.Create && (!s.Maybe || p.absent)
	if s.Kind != statement.Alter {
		return
	}
	p.values = p.values || s.Values
	if s.Converts {
		p.converts++
	}
}

func (p *Pending) say(text string) {
	if text == "" || p.bytes+len(text) > maxText {
		return
	}
	p.texts = append(p.texts, text)
	p.bytes += len(text)
}

// Follow adds what was noted of the table that takes this one's place; nil: nothing was.
func (p *Pending) Follow(o *Pending) {
	if o == nil {
		p.unsure = true
		return
	}
	for _, text := range o.texts {
		p.say(text)
	}
	p.seen, p.values, p.replaced, p.unsure = p.seen || o.seen, p.values || o.values, p.replaced || o.replaced, p.unsure || o.unsure || !o.created
	p.converts += o.converts
}

// Replaced notes that the rows of the table are others now, without events.
func (p *Pending) Replaced() { p.replaced = true }

// Fill notes that the table had row events.
func (p *Pending) Fill() { p.filled = true }

// Filled tells whether the table had row events since a statement created it, surely.
func (p *Pending) Filled() bool { return p != nil && p.created && p.filled }

// Text is what is known of the statements, one per line.
func (p *Pending) Text() string {
	if p == nil {
		return ""
	}
	return strings.Join(p.texts, ";\n")
}

// Effect tells whether subscribers have to hear of the table's shape, and whether rows that existed read
// otherwise now without events: surely not, or it says yes. before is nil when no shape was known, and has
// no columns when the table did not exist; all says that every statement between the two is known.
func (p *Pending) Effect(before, now *schemas.Table, same, all bool) (event, rewrites bool) {
	if p == nil {
		p = &Pending{}
	}
	switch {
	case p.replaced:
		return true, true
	case before == nil:
		return false, false
	case len(before.Columns) == 0:
		return true, !p.created // else it may have come by a rename
	}
	unseen := p.unsure || p.converts > 1
	if same {
		return unseen, unseen
	}
	d := change.Between(before, now)
	begins := func(i int) bool { return p.values || !p.seen || !all || !now.Columns[i].Nullable }
	return true, unseen || len(d.Converted) > 0 || len(d.Nulls) > 0 || slices.ContainsFunc(d.Added, begins)
}

// Foresee returns the shape that a statement leaves as far as it says so by names alone: columns that go or are
// renamed; the rest is for the next table map to say. nil: none. It serves for telling, and for knowing behind
// a restart what was told, not for reading rows.
func Foresee(t *schemas.Table, s statement.Statement) *schemas.Table {
	next := *t
	next.Columns, next.Identity, next.Routing, next.KeySpace, next.ID, next.Version = nil, nil, nil, "", 0, 0
	changed := false
	for i, c := range t.Columns {
		if slices.ContainsFunc(s.Dropped, func(name string) bool { return strings.EqualFold(name, c.Name) }) {
			changed = true
			continue
		}
		for _, r := range s.Renames {
			if strings.EqualFold(r[0], t.Columns[i].Name) {
				c.Name, changed = r[1], true
			}
		}
		if slices.Contains(t.Identity, i) {
			next.Identity = append(next.Identity, len(next.Columns))
		}
		next.Columns = append(next.Columns, c)
	}
	if !changed || len(next.Columns) == 0 {
		return nil
	}
	if len(next.Identity) < len(t.Identity) {
		next.Identity = nil
	}
	return next.Seal()
}
