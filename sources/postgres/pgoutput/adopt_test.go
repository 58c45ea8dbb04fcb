package pgoutput

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// describing is what a server remembers of having described one table: to everybody, and to which running
// transactions. Their commit makes it everybody's, unless the table was changed since.
type describing struct {
	columns int
	all     bool
	to      map[uint32]bool
}

func (s *describing) row(oid, block uint32, value string) [][]byte {
	var out [][]byte
	wrap := func(m []byte) []byte {
		if block == 0 {
			return m
		}
		return in(block, m)
	}
	names, values := []string{"id", "v", "w", "x"}[:s.columns], slices.Repeat([]string{value}, s.columns)
	if block == 0 && !s.all || block != 0 && !s.to[block] {
		out = append(out, wrap(relationMsg(oid, fmt.Sprint("t", oid), 'd', names...)))
		if block == 0 {
			s.all = true
		} else {
			s.to[block] = true
		}
	}
	return append(out, wrap(insertMsg(oid, values...)))
}

func (s *describing) end(block uint32, committed bool) {
	s.all = s.all || committed && s.to[block]
	delete(s.to, block)
}

// However the columns of tables change while transactions run, a row is read by what the server last said of its
// table, as the server remembers it.
func TestDescriptionsOfRunningTransactions(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := NewDecoder(options())
		defer d.Close()
		m := &modelLog{open: map[string][]modelLine{}}
		tables := []*describing{{columns: 2, to: map[uint32]bool{}}, {columns: 2, to: map[uint32]bool{}}}
		running := map[uint32][]string{}
		var want []string
		lsn, next := LSN(200), uint32(1000)
		for step := range rapid.IntRange(4, 40).Draw(rt, "steps") {
			lsn += 10
			oid := rapid.Uint32Range(1, 2).Draw(rt, "table")
			tx := rapid.Uint32Range(7, 9).Draw(rt, "running")
			s := tables[oid-1]
			value := fmt.Sprint(step)
			line := fmt.Sprintf("insert t%d %s", oid, image(slices.Repeat([]string{value}, s.columns)...))
			switch rapid.IntRange(0, 5).Draw(rt, "what") {
			case 0: // a change of the columns that are sent
				*s = describing{columns: rapid.IntRange(1, 4).Draw(rt, "columns"), to: map[uint32]bool{}}
			case 1, 2:
				next++
				feed(rt, d, begin(lsn-1, next))
				feed(rt, d, s.row(oid, 0, value)...)
				feed(rt, d, commit(lsn))
				want = append(want, line)
			case 3, 4:
				feed(rt, d, blockStart(tx))
				feed(rt, d, s.row(oid, tx, value)...)
				feed(rt, d, blockEnd())
				running[tx] = append(running[tx], line)
			case 5:
				committed := rapid.IntRange(0, 3).Draw(rt, "abort") > 0
				if committed {
					want = append(want, running[tx]...)
					feed(rt, d, streamCommit(tx, lsn))
				} else {
					feed(rt, d, streamAbort(tx, tx))
				}
				delete(running, tx)
				for _, s := range tables {
					s.end(tx, committed)
				}
			}
		}
		if len(d.notices) > 0 {
			rt.Fatalf("notice: %+v", d.notices[0])
		}
		d.Flush()
		m.take(rt, d)
		var got []string
		for _, l := range m.lines {
			if words := strings.Fields(l); words[1] == "insert" {
				got = append(got, strings.Join(words[1:len(words)-1], " "))
			}
		}
		if !slices.Equal(got, want) {
			rt.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// numbered reads a relation as plain does, with the table's number, and columns that may be NULL.
func numbered(rel *Relation) (Shape, error) {
	shape, err := plain(rel)
	shape.Table.Number = rel.OID
	for i := range shape.Table.Columns {
		shape.Table.Columns[i].Nullable = true
	}
	return shape, err
}

// numbering is a stream of such tables, of which the log has one.
func numbering(known *schemas.Table) Options {
	o := options()
	o.Resolve, o.Known = numbered, map[string]*schemas.Table{known.Subject(): known}
	return o
}

func tableOf(name string, columns ...string) *schemas.Table {
	rel := &Relation{OID: 1, Schema: "public", Name: name}
	for _, c := range columns {
		rel.Columns = append(rel.Columns, RelationColumn{Name: c, OID: 25, Mod: -1})
	}
	shape, _ := numbered(rel)
	return shape.Table.Seal()
}

// A shape is told once: neither an older one of a running transaction nor one that the log has already makes the next
// row of the newest seem to be of another.
func TestShapesOfRunningTransactions(t *testing.T) {
	one, two := relationMsg(1, "t", 'd', "id"), relationMsg(1, "t", 'd', "id", "v")
	three := relationMsg(1, "t", 'd', "id", "v", "w")
	moved, wider := relationMsg(1, "u", 'd', "id", "v"), relationMsg(1, "u", 'd', "id", "v", "w")
	for name, c := range map[string]struct {
		known    *schemas.Table
		messages [][]byte
		want     []string
	}{
		"an older shape": {tableOf("t", "id"), [][]byte{
			blockStart(7), in(7, two), in(7, insertMsg(1, "1", "a")), blockEnd(),
			begin(200, 8), three, insertMsg(1, "2", "b", "c"), commit(201), streamCommit(7, 210),
			begin(220, 9), insertMsg(1, "3", "x", "y"), commit(221),
			begin(230, 10), three, insertMsg(1, "4", "x", "y"), commit(231),
		}, []string{"8 schema t", "8 insert t", "7 schema t", "7 insert t", "9 insert t", "10 insert t"}},
		"an older name": {tableOf("t", "id"), [][]byte{
			blockStart(7), in(7, two), in(7, insertMsg(1, "1", "a")), blockEnd(),
			begin(200, 8), moved, insertMsg(1, "2", "b"), commit(201), streamCommit(7, 210),
			begin(220, 9), insertMsg(1, "3", "x"), commit(221),
			begin(230, 10), moved, insertMsg(1, "4", "x"), commit(231),
			begin(240, 11), wider, insertMsg(1, "5", "x", "y"), commit(241), // not moved again
		}, []string{"8 schema t", "8 schema u rewrites", "8 insert u", "7 schema t", "7 insert t", "9 insert u", "10 insert u", "11 schema u", "11 insert u"}},
		"a newer shape": {tableOf("t", "id"), [][]byte{
			begin(200, 8), one, insertMsg(1, "1"), commit(201),
			blockStart(7), in(7, two), in(7, insertMsg(1, "2", "b")), blockEnd(), streamCommit(7, 210),
			begin(230, 9), insertMsg(1, "3", "x"), commit(231),
		}, []string{"8 insert t", "7 schema t", "7 insert t", "9 insert t"}},
		"a shape of which the log has more": {tableOf("t", "id", "v", "w"), [][]byte{
			blockStart(7), in(7, two), in(7, insertMsg(1, "1", "a")), blockEnd(), streamCommit(7, 90),
			begin(220, 9), three, insertMsg(1, "3", "x", "y"), commit(221),
		}, []string{"9 insert t"}},
		"a shape that the log lacks": {tableOf("t", "id", "v", "w"), [][]byte{
			blockStart(7), in(7, two), in(7, insertMsg(1, "1", "a")), blockEnd(), streamCommit(7, 90),
			begin(220, 9), insertMsg(1, "3", "x"), insertMsg(1, "4", "x"), commit(221),
		}, []string{"9 schema t", "9 insert t", "9 insert t"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(numbering(c.known))
			defer d.Close()
			feed(t, d, c.messages...)
			d.Flush()
			m := &modelLog{open: map[string][]modelLine{}}
			m.take(t, d)
			var got []string
			for _, l := range m.lines {
				line := strings.Join(strings.Fields(l)[:3], " ")
				if strings.Contains(l, `rewrites\":true`) {
					line += " rewrites"
				}
				got = append(got, line)
			}
			same(t, got, c.want...)
			if len(d.notices) > 0 {
				t.Errorf("notice: %+v", d.notices[0])
			}
		})
	}
}

// That rows of a table were left out stays known, whichever of the two, running transaction or others, left them out.
func TestQuarantineAndRunningTransactions(t *testing.T) {
	rel, odd := relationMsg(1, "t", 'd', "id", "v"), insertMsg(1, "1", "a", "more")
	row := insertMsg(1, "2", "b")
	left := []pipeline.NoticeKind{pipeline.NoticeQuarantined}
	back := append(left, pipeline.NoticeReleased, pipeline.NoticeGap)
	for name, c := range map[string]struct {
		messages [][]byte
		want     []pipeline.NoticeKind
	}{
		"an older one that could be read": {[][]byte{
			blockStart(7), in(7, rel), in(7, row), blockEnd(), begin(200, 8), rel, odd, commit(201), streamCommit(7, 210),
			begin(220, 9), row, commit(221),
		}, left},
		"a newer one that could be read": {[][]byte{
			begin(200, 8), rel, row, commit(201), blockStart(7), in(7, rel), in(7, row), blockEnd(),
			begin(202, 8), odd, commit(203), streamCommit(7, 210), begin(220, 9), row, commit(221),
		}, back},
		"an older one that could not": {[][]byte{
			blockStart(7), in(7, rel), in(7, odd), blockEnd(), begin(200, 8), rel, row, commit(201), streamCommit(7, 210),
			begin(220, 9), row, commit(221),
		}, back},
		"a newer one that could not": {[][]byte{
			begin(200, 8), rel, row, commit(201), blockStart(7), in(7, rel), in(7, odd), blockEnd(), streamCommit(7, 210),
			begin(220, 9), row, commit(221),
		}, left},
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(options())
			defer d.Close()
			feed(t, d, c.messages...)
			d.Flush()
			d.Progress()
			_, notices := all(t, d)
			var got []pipeline.NoticeKind
			for _, n := range notices {
				got = append(got, n.Kind)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
