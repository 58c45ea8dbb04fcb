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
	renames  int
	converts int
	dropped  []string
	again    bool
	replaced bool
	told     bool
}

// Add notes a statement.
func (p *Pending) Add(text string, s statement.Statement) {
	if s.Secret {
		text = "" // may hold a password
	}
	p.say(text)
	p.seen = p.seen || s.Kind != statement.Create
	if s.Kind != statement.Alter {
		return
	}
	p.values = p.values || s.Values
	p.again = p.again || s.Again
	p.renames += s.Renames
	p.dropped = append(p.dropped, s.Dropped...)
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

// Follow adds what was noted of the table that takes this one's place.
func (p *Pending) Follow(o *Pending) {
	if o == nil {
		return
	}
	for _, text := range o.texts {
		p.say(text)
	}
	p.seen, p.values, p.again, p.replaced = p.seen || o.seen, p.values || o.values, p.again || o.again, p.replaced || o.replaced
	p.renames, p.converts = p.renames+o.renames, p.converts+o.converts
	p.dropped = append(p.dropped, o.dropped...)
}

// Replaced notes that the rows of the table are others now, without events.
func (p *Pending) Replaced() { p.replaced = true }

// Told notes that subscribers know what was done to the rows, as far as it cannot be seen from the shapes.
func (p *Pending) Told() { p.told = true }

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
		return true, false
	}
	unseen := p.renames > 0 || p.again || p.converts > 1 || slices.ContainsFunc(p.dropped, func(name string) bool { return now.Column(name) >= 0 })
	if same {
		return unseen && !p.told, unseen
	}
	d := change.Between(before, now)
	begins := func(i int) bool { return p.values || !p.seen || !all || !now.Columns[i].Nullable }
	return true, unseen || len(d.Converted) > 0 || len(d.Nulls) > 0 || slices.ContainsFunc(d.Added, begins)
}
