package verify

import (
	"strings"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// shownRows of a table's differences are listed; --json has up to 1,000.
const shownRows = 20

func (a *commands) show(r *leatv1.VerifyReport, target bool) {
	t := screen.NewTable("TABLE", ">ROWS", ">EQUAL", ">DIFFERENT", "NOT COMPARED")
	for _, x := range r.GetTables() {
		style := screen.Green
		if x.GetDifferent() > 0 {
			style = screen.Red
		}
		t.Row(screen.Cell{Text: x.GetTable(), Style: screen.Bold}, screen.Text(screen.Count(x.GetRows())), screen.Text(screen.Count(x.GetCompared()+x.GetAbsent())),
			screen.Cell{Text: screen.Count(x.GetDifferent()), Style: style}, screen.Text(left(x)))
		if x.GetError() != "" {
			t.Note(screen.Red, "! "+x.GetError())
		}
		for i, d := range x.GetDifferences() {
			if i == shownRows {
				t.Note(screen.Dim, "… and "+screen.Count(x.GetDifferent()-shownRows)+" more: --json")
				break
			}
			t.Note(screen.Red, difference(d, target))
		}
	}
	a.Out.Print(t)
}

func difference(d *leatv1.VerifiedRow, target bool) string {
	other := "the log"
	if target {
		other = "the target"
	}
	switch d.GetKind() {
	case "missing":
		return d.GetKey() + " is not in " + other
	case "extra":
		return d.GetKey() + " is in " + other + ", not in the source"
	}
	return d.GetKey() + " differs in " + strings.Join(d.GetColumns(), ", ")
}

// left says what of a table could not be compared.
func left(x *leatv1.VerifiedTable) string {
	var parts []string
	add := func(n uint64, what string) {
		if n > 0 {
			parts = append(parts, screen.Count(n)+" "+what)
		}
	}
	add(x.GetBeyondRetention(), "beyond retention")
	add(x.GetAbsent(), "not in all columns")
	add(x.GetFiltered(), "filtered out")
	add(x.GetMoving(), "changing all the time")
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// document is that of verify --json.
type document struct {
	Equal  bool            `json:"equal"`
	Tables []documentTable `json:"tables"`
	Jobs   []string        `json:"jobs,omitempty"`
}

type documentTable struct {
	Table       string          `json:"table"`
	Error       string          `json:"error,omitempty"`
	Rows        uint64          `json:"rows"`
	Compared    uint64          `json:"compared"`
	Different   uint64          `json:"different"`
	Beyond      uint64          `json:"beyond_retention"`
	Absent      uint64          `json:"absent"`
	Filtered    uint64          `json:"filtered"`
	Moving      uint64          `json:"moving"`
	Ranges      []documentRange `json:"ranges"`
	Differences []documentRow   `json:"differences"`
}

type documentRange struct {
	Range      uint64 `json:"range"`
	SourceRows uint64 `json:"source_rows"`
	OtherRows  uint64 `json:"other_rows"`
	SourceSum  string `json:"source_sum"`
	OtherSum   string `json:"other_sum"`
}

type documentRow struct {
	Key     string   `json:"key"`
	Kind    string   `json:"kind"`
	Columns []string `json:"columns,omitempty"`
}

func documentOf(r *leatv1.VerifyReport, jobs []string) document {
	d := document{Equal: true, Tables: []documentTable{}, Jobs: jobs}
	for _, x := range r.GetTables() {
		t := documentTable{Table: x.GetTable(), Error: x.GetError(), Rows: x.GetRows(), Compared: x.GetCompared(), Different: x.GetDifferent(), Beyond: x.GetBeyondRetention(),
			Absent: x.GetAbsent(), Filtered: x.GetFiltered(), Moving: x.GetMoving(), Ranges: []documentRange{}, Differences: []documentRow{}}
		d.Equal = d.Equal && t.Different == 0 && t.Error == ""
		for _, g := range x.GetRanges() {
			t.Ranges = append(t.Ranges, documentRange{g.GetRange(), g.GetSourceRows(), g.GetOtherRows(), g.GetSourceSum(), g.GetOtherSum()})
		}
		for _, w := range x.GetDifferences() {
			t.Differences = append(t.Differences, documentRow{w.GetKey(), w.GetKind(), w.GetColumns()})
		}
		d.Tables = append(d.Tables, t)
	}
	return d
}
