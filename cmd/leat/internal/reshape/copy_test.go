package reshape

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// copied is what a subscriber has of a table: it knows events and nothing else.
type copied struct {
	columns []string // nil: no event has told them
	rows    map[string]*row
	// stale: rows may have come without events; a backfill is due.
	stale bool
}

type row struct {
	cells map[string]string
	stale bool // it may read otherwise by now
}

// null is the text of a NULL.
const null = "\x00"

// subscriber applies events. What must not be is an error.
type subscriber struct {
	tables  map[string]*copied
	schemas int // schema events seen, and how many of them said that rows changed without events
	rewrote int
	keyless int
	log     []string // the last events, for the report of a failure
}

// event is what a sink sends.
type event struct {
	Type string `json:"type"`
	Data struct {
		Table     string                     `json:"table"`
		Op        string                     `json:"op"`
		Key       map[string]json.RawMessage `json:"key"`
		Before    map[string]json.RawMessage `json:"before"`
		After     map[string]json.RawMessage `json:"after"`
		Absent    []string                   `json:"absent"`
		Statement string                     `json:"statement"`
		Rewrites  bool                       `json:"rewrites"`
		Columns   []struct {
			Name string `json:"name"`
		} `json:"columns"`
	} `json:"data"`
}

func (s *subscriber) note(format string, args ...any) {
	if s.log = append(s.log, fmt.Sprintf(format, args...)); len(s.log) > 400 {
		s.log = slices.Delete(s.log, 0, 200)
	}
}

func (s *subscriber) take(text []byte) error {
	var e event
	if err := json.Unmarshal(text, &e); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	d := &e.Data
	t := s.tables[d.Table]
	if t == nil {
		t = &copied{rows: map[string]*row{}}
		s.tables[d.Table] = t
	}
	s.note("%s %s %v %v -> %v absent %v columns %v rewrites %v %s", d.Op, d.Table, texts(d.Key), texts(d.Before), texts(d.After), d.Absent, d.Columns, d.Rewrites, d.Statement)
	switch d.Op {
	case "schema":
		s.schemas++
		if d.Rewrites {
			s.rewrote++
		}
		names := []string{}
		for _, c := range d.Columns {
			names = append(names, c.Name)
		}
		t.reshape(names, d.Rewrites)
	case "truncate":
		clear(t.rows)
		t.stale = false
	case "insert", "update", "delete":
		if len(d.Key) == 0 { // PostgreSQL under REPLICA IDENTITY FULL, of a table that is gone already: nobody knows its key
			s.keyless++
			t.stale = true
			return nil
		}
	}
	switch d.Op {
	case "schema", "truncate":
	case "insert", "update":
		return t.put(d.Table, key(d.Key), d.Op, texts(d.After), d.Absent)
	case "delete":
		if t.rows[key(d.Key)] == nil && !t.stale {
			return fmt.Errorf("%s: deleted %v, which is not there", d.Table, texts(d.Key))
		}
		delete(t.rows, key(d.Key))
	default:
		return fmt.Errorf("an event of op %q", d.Op)
	}
	return nil
}

func (t *copied) reshape(names []string, rewrites bool) {
	if len(names) == 0 { // the table is gone
		*t = copied{columns: names, rows: map[string]*row{}}
		return
	}
	for _, r := range t.rows {
		for c := range r.cells {
			if !slices.Contains(names, c) {
				delete(r.cells, c)
			}
		}
		for _, c := range names {
			if _, ok := r.cells[c]; !ok {
				r.cells[c] = null
			}
		}
		r.stale = r.stale || rewrites
	}
	t.columns, t.stale = names, t.stale || rewrites
}

func (t *copied) put(table, k, op string, after map[string]string, absent []string) error {
	names := append(sorted(after), absent...)
	if t.columns == nil {
		t.columns = names
	}
	if sort.Strings(names); !slices.Equal(names, sortedCopy(t.columns)) {
		return fmt.Errorf("%s: a row with columns %v, the last schema event told %v", table, names, t.columns)
	}
	old := t.rows[k]
	switch {
	case op == "insert" && old != nil && !old.stale:
		return fmt.Errorf("%s: inserted %q, which is there", table, k)
	case op == "update" && old == nil && !t.stale:
		return fmt.Errorf("%s: updated %q, which is not there", table, k)
	}
	r := &row{cells: after}
	for _, c := range absent {
		if old == nil || old.stale {
			r.stale = true
		} else {
			after[c] = old.cells[c]
		}
	}
	t.rows[k] = r
	return nil
}

// compare returns how the copy differs from the table's rows, by key; a backfill of what is stale is made at
// its end. fresh counts the rows that were compared.
func (t *copied) compare(columns []string, rows map[string]map[string]string) (diff []string, fresh int) {
	if t.columns != nil && !slices.Equal(sortedCopy(t.columns), sortedCopy(columns)) {
		diff = append(diff, fmt.Sprintf("columns %v, the table has %v", t.columns, columns))
	}
	for k, want := range rows {
		r := t.rows[k]
		switch {
		case r == nil && !t.stale:
			diff = append(diff, fmt.Sprintf("row %q is missing", k))
		case r == nil || r.stale:
		default:
			fresh++
			for _, c := range columns {
				if r.cells[c] != want[c] {
					diff = append(diff, fmt.Sprintf("row %q column %s: %q, the table has %q", k, c, r.cells[c], want[c]))
				}
			}
		}
	}
	for k, r := range t.rows {
		if rows[k] == nil && !r.stale {
			diff = append(diff, fmt.Sprintf("row %q is not in the table", k))
		}
	}
	slices.Sort(diff)
	if t.stale {
		t.rows, t.stale = map[string]*row{}, false
		for k, cells := range rows {
			t.rows[k] = &row{cells: cells}
		}
	}
	return diff, fresh
}

func sortedCopy(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

func sorted(m map[string]string) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// texts turns JSON scalars into the database's text.
func texts(m map[string]json.RawMessage) map[string]string {
	out := make(map[string]string, len(m))
	for name, v := range m {
		out[name] = scalar(v)
	}
	return out
}

func scalar(v json.RawMessage) string {
	switch text := string(v); {
	case text == "null":
		return null
	case strings.HasPrefix(text, `"`):
		var s string
		_ = json.Unmarshal(v, &s) // it was read as JSON a moment ago
		return s
	default:
		return text
	}
}

// key is the values of a row's key; the tables have one column of it.
func key(m map[string]json.RawMessage) string {
	for _, v := range m {
		return scalar(v)
	}
	return ""
}
