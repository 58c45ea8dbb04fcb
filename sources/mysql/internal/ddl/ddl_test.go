package ddl

import (
	"strings"
	"testing"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql/internal/statement"
)

func TestGhost(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]string{
		"_t_gho": "t", "_t_ghc": "t", "_t_del": "t", "_t_20260102030405_del": "t", "_t_new": "t", "___t_old": "t", "_a_b_new": "a_b", "_t_old_new": "t_old",
		"t_new": "", "_new": "", "__new": "", "_t": "", "__t_gho": "", "_t_news": "", "": "", "_": "", "_20260102030405_del": "20260102030405",
	} {
		if got, ok := Ghost(name); got != of || ok != (of != "") {
			t.Errorf("%q: %q %v, want %q", name, got, ok, of)
		}
	}
}

// No more is shown than is kept.
func TestText(t *testing.T) {
	t.Parallel()
	var p Pending
	for _, text := range []string{"ALTER TABLE t ADD a int", "ALTER TABLE t COMMENT '" + strings.Repeat("x", maxText) + "'", "ALTER TABLE t DROP a"} {
		p.Add(text, statement.Read(text, statement.Options{}))
	}
	if got := p.Text(); got != "ALTER TABLE t ADD a int;\nALTER TABLE t DROP a" {
		t.Fatal(got)
	}
	if (*Pending)(nil).Text() != "" {
		t.Fatal("none says something")
	}
}

// Where a statement may have been missed, a new column counts as one that begins with a value.
func TestEffectOfWhatWasNotSeen(t *testing.T) {
	t.Parallel()
	column := func(name string) schemas.Column { return schemas.Column{Name: name, Nullable: true} }
	before := &schemas.Table{Columns: []schemas.Column{column("a")}}
	now := &schemas.Table{Columns: []schemas.Column{column("a"), column("b")}}
	var p Pending
	p.Add("x", statement.Read("ALTER TABLE t ADD b int", statement.Options{}))
	for i, c := range []struct {
		p             *Pending
		all, rewrites bool
	}{{&p, true, false}, {&p, false, true}, {nil, true, true}} {
		if event, rewrites := c.p.Effect(before, now, false, c.all); !event || rewrites != c.rewrites {
			t.Errorf("%d: %v %v", i, event, rewrites)
		}
	}
}
