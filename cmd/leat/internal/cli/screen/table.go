package screen

import (
	"slices"
	"strings"
)

// Cell of a table.
type Cell struct {
	Text  string
	Style Style
}

// Text is a cell in no style.
func Text(s string) Cell { return Cell{Text: s} }

// Table aligns its columns. (text/tabwriter counts the bytes of colours as width.)
type Table struct {
	head  []string
	right []bool
	rows  [][]Cell
	notes map[int][]Cell
	spare []string
}

// NewTable has a head; a column whose name begins with > is aligned to the right.
func NewTable(head ...string) *Table {
	t := &Table{notes: map[int][]Cell{}}
	for _, h := range head {
		name, right := strings.CutPrefix(h, ">")
		t.head, t.right = append(t.head, name), append(t.right, right)
	}
	return t
}

// Row adds a row; its texts are cleaned.
func (t *Table) Row(cells ...Cell) {
	for i := range cells {
		cells[i].Text = Clean(cells[i].Text)
		if cells[i].Text == "" {
			cells[i].Text = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

// Note adds a line below the newest row, as wide as it is.
func (t *Table) Note(style Style, text string) {
	at := len(t.rows) - 1
	t.notes[at] = append(t.notes[at], Cell{Clean(text), style})
}

// Spare names columns that are left out, one after the other, as long as the table is wider than the terminal.
func (t *Table) Spare(columns ...string) { t.spare = columns }

// Fit makes the table as wide as width (0: as it is): after what is spared the last column is cut, so that
// each row is one line.
func (t *Table) Fit(width int) {
	if width <= 0 || len(t.rows) == 0 {
		return
	}
	all := t.widths()
	last := len(all) - 1
	all[last] = min(all[last], minLast)
	room := width - total(all, t.left(all, width)) + all[last]
	for _, r := range t.rows {
		if len(r) > last {
			r[last].Text = Shorten(r[last].Text, max(room, minLast))
		}
	}
}

// minLast is what columns are spared for to leave to the last one.
const minLast = 24

// left are the columns that are left out of a table as wide as width.
func (t *Table) left(all []int, width int) []bool {
	left := make([]bool, len(all))
	for _, name := range t.spare {
		if i := slices.Index(t.head, name); i >= 0 && width > 0 && total(all, left) > width {
			left[i] = true
		}
	}
	return left
}

// Len is the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Print writes the table.
func (s *Screen) Print(t *Table) {
	width := t.widths()
	left := t.left(width, s.Width)
	head := make([]Cell, len(t.head))
	for i, h := range t.head {
		head[i] = Cell{h, Bold}
	}
	s.line(t, width, left, head)
	for n, r := range t.rows {
		s.line(t, width, left, r)
		for _, note := range t.notes[n] {
			s.Printf("  %s\n", s.Paint(note.Style, note.Text))
		}
	}
}

func (t *Table) widths() []int {
	width := make([]int, len(t.head))
	for i, h := range t.head {
		width[i] = Width(h)
		for _, r := range t.rows {
			if i < len(r) {
				width[i] = max(width[i], Width(r[i].Text))
			}
		}
	}
	return width
}

// total is the width of the columns that are not left out, with the gaps between them.
func total(width []int, left []bool) int {
	sum := -gap
	for i, w := range width {
		if !left[i] {
			sum += gap + w
		}
	}
	return sum
}

// gap between columns.
const gap = 2

func (s *Screen) line(t *Table, width []int, left []bool, cells []Cell) {
	var b strings.Builder
	for i, c := range cells {
		if left[i] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		pad := strings.Repeat(" ", max(width[i]-Width(c.Text), 0))
		if t.right[i] {
			b.WriteString(pad)
		}
		b.WriteString(s.Paint(c.Style, c.Text))
		if !t.right[i] && i < len(cells)-1 {
			b.WriteString(pad)
		}
	}
	s.Printf("%s\n", strings.TrimRight(b.String(), " "))
}

// Pairs writes "name  value" lines with the values aligned; empty values are left out.
func (s *Screen) Pairs(pairs ...[2]string) {
	width := 0
	for _, p := range pairs {
		if p[1] != "" {
			width = max(width, Width(p[0]))
		}
	}
	for _, p := range pairs {
		if p[1] != "" {
			s.Printf("  %s%s  %s\n", s.Paint(Dim, p[0]), strings.Repeat(" ", width-Width(p[0])), Clean(p[1]))
		}
	}
}
