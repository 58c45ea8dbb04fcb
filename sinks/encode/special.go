package encode

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// jsonColumn is a column as a leat.schema event shows it.
type jsonColumn struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Kind     string `json:"kind"`
	Nullable bool   `json:"nullable"`
	Elem     string `json:"elem,omitempty"`
}

// schemaChange reads the content of a schema event and drops the columns that are not sent.
func (st *state) schemaChange(content []byte) (*pipeline.SchemaChange, error) {
	var c pipeline.SchemaChange
	if err := json.Unmarshal(content, &c); err != nil {
		return nil, fmt.Errorf("schema change: %w", err)
	}
	if st.plan.table == nil {
		return &c, nil
	}
	t := *st.plan.table
	t.Columns = c.Columns
	view, err := st.e.o.View(&t, &cell.Form{})
	if err != nil {
		return nil, err
	}
	c.Columns = view.columns()
	return &c, nil
}

func (st *state) jsonSchema(dst, content []byte) ([]byte, error) {
	c, err := st.schemaChange(content)
	if err != nil {
		return dst, err
	}
	out := struct {
		Columns   []jsonColumn `json:"columns"`
		Statement string       `json:"statement,omitempty"`
		Rewrites  bool         `json:"rewrites,omitempty"`
	}{[]jsonColumn{}, c.Statement, c.Rewrites}
	for i := range c.Columns {
		col := &c.Columns[i]
		j := jsonColumn{Name: col.Name, Type: col.Type.Name, Kind: col.Type.Kind.String(), Nullable: col.Nullable}
		if col.Type.Elem != nil {
			j.Elem = col.Type.Elem.Kind.String()
		}
		out.Columns = append(out.Columns, j)
	}
	text, err := json.Marshal(out)
	if err != nil {
		return dst, fmt.Errorf("schema change: %w", err)
	}
	return append(append(dst, ','), text[1:len(text)-1]...), nil
}

// jsonMessage appends a logical message. Content that is not UTF-8 is base64, and says so.
func (st *state) jsonMessage(dst, prefix, content []byte) ([]byte, error) {
	dst = append(dst, `,"prefix":"`...)
	var ok bool
	if dst, ok = appendEscaped(dst, prefix); !ok {
		return dst, fmt.Errorf("prefix: %w", errUTF8)
	}
	dst = append(dst, `","content":"`...)
	if utf8.Valid(content) {
		dst, _ = appendEscaped(dst, content)
		return append(dst, '"'), nil
	}
	dst = base64.StdEncoding.AppendEncode(dst, content)
	return append(dst, `","encoding":"base64"`...), nil
}

// ResolvedID is the id of the leat.resolved event of o; no other event has it.
func ResolvedID(source string, o pipeline.Offset) string {
	return fmt.Sprintf("%s-resolved-%d", source, o)
}

// Resolved returns a leat.resolved event as JSON: everything below o is done; t is the time of saying so.
func Resolved(source string, o pipeline.Offset, t time.Time) []byte {
	at, _ := appendTimestamp(nil, t.UnixMicro())
	dst := appendText([]byte(`{"specversion":"1.0","id":"`), ResolvedID(source, o))
	dst = appendText(append(dst, `","source":"/sources/`...), source)
	dst = fmt.Appendf(dst, `","type":"leat.resolved","time":"%s","datacontenttype":"application/json","partitionkey":"[]","sequence":"%020d",`, at, o)
	return fmt.Appendf(dst, `"data":{"resolved":"%d","time":"%s"}}`, o, at)
}

// Table returns the definition of a table version as a subscriber with these columns sees it.
func (e *Encoder) Table(t *schemas.Table) *leatv1.Table {
	out := &leatv1.Table{Id: t.ID, Version: t.Version, Schema: t.Schema, Name: t.Name, Subject: t.Subject()}
	view, err := e.o.View(t, &cell.Form{})
	if err != nil {
		return out // no event of it is sent either
	}
	cols := view.columns()
	for i := range cols {
		out.Columns = append(out.Columns, protoColumn(&cols[i]))
	}
	names := func(of []int) (n []string) {
		for _, i := range of {
			if i >= 0 && i < len(t.Columns) && !t.Columns[i].Dropped {
				n = append(n, view.Of(i).Name)
			}
		}
		return n
	}
	out.Identity, out.Routing = names(t.Identity), names(t.Routing)
	return out
}

// columns are the view's as shapes have them.
func (v *View) columns() []schemas.Column {
	var out []schemas.Column
	for i := range v.Columns {
		c := &v.Columns[i]
		out = append(out, schemas.Column{Name: c.Name, Type: c.Type, Nullable: c.Nullable})
	}
	return out
}

func protoColumn(c *schemas.Column) *leatv1.Column {
	out := &leatv1.Column{Name: c.Name, Kind: leatv1.Kind(c.Type.Kind), Type: c.Type.Name, Bits: uint32(c.Type.Bits), Nullable: c.Nullable}
	if c.Type.Elem != nil {
		out.Elem = leatv1.Kind(c.Type.Elem.Kind)
	}
	return out
}
