package encode

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// plan is what is known of a table version before its rows are seen.
type plan struct {
	table *schemas.Table
	form  *cell.Form
	// cols are the columns sent, in the table's order.
	cols []column
	// keys are the columns of identity and routing key, each once; identity and routing are indexes into it.
	keys              []keyColumn
	identity, routing []int
	sameKey           bool
	// walk is how many columns of an image must be walked.
	walk int

	// JSON: after the offset, by op: type and subject.
	head [8][]byte
	mid  []byte    // from the time to the partition key
	data [8][]byte // from the sequence to the key
	// Protobuf: table id and version, encoded.
	ref []byte
}

// column is one column sent.
type column struct {
	index int
	wire  wire
	// first and next are the JSON name with what stands before it: `{"id":` or `,"id":`.
	first, next []byte
	quoted      []byte // the name as a JSON string
	// key is the index into plan.keys, or -1.
	key int
}

type keyColumn struct {
	index int
	wire  wire
	first []byte
	next  []byte
}

// wire is how a column's cells are read.
type wire struct {
	plain  cell.Plain
	decode cell.Decode
}

var errNoForm = errors.New("the table's wire form is not known to this version")

func (e *Encoder) compile(t *schemas.Table) (*plan, error) {
	p := &plan{table: t, form: e.o.Form(t)}
	if p.form == nil && t.Wire == schemas.WireNone {
		p.form = &cell.Form{}
	}
	if p.form == nil || t.Wire != schemas.WireNone && len(p.form.Decode) != len(t.Columns) {
		return nil, errNoForm
	}
	view, err := e.o.View(t, p.form)
	if err != nil {
		return nil, err
	}
	slot := map[int]int{}
	add := func(of []int) (idx []int, err error) {
		for _, c := range of {
			if c < 0 || c >= len(t.Columns) {
				return nil, fmt.Errorf("the key of %s names column %d of %d", t.Subject(), c, len(t.Columns))
			}
			if t.Columns[c].Dropped {
				continue // never entered the log, as configured
			}
			k, ok := slot[c]
			if !ok {
				k = len(p.keys)
				slot[c] = k
				col := view.Of(c)
				first, next, _ := fragments3(col.Name)
				p.keys = append(p.keys, keyColumn{index: c, wire: wire{col.Plain, col.Decode}, first: first, next: next})
				p.walk = max(p.walk, c+1)
			}
			idx = append(idx, k)
		}
		return idx, nil
	}
	if p.identity, err = add(t.Identity); err != nil {
		return nil, err
	}
	if p.routing, err = add(t.Routing); err != nil {
		return nil, err
	}
	p.sameKey = slices.Equal(p.identity, p.routing)
	for i := range view.Columns {
		col := &view.Columns[i]
		c := column{index: col.Index, wire: wire{col.Plain, col.Decode}, key: -1}
		c.first, c.next, c.quoted = fragments3(col.Name)
		if k, ok := slot[col.Index]; ok {
			c.key = k
		}
		p.cols = append(p.cols, c)
		p.walk = max(p.walk, col.Index+1)
	}
	e.fragmentsOf(p)
	return p, nil
}

func (e *Encoder) compilePlain() *plan {
	p := &plan{form: &cell.Form{}}
	e.fragmentsOf(p)
	return p
}

// fragments3 returns a column's name as it begins an object, goes on in one, and alone.
func fragments3(name string) (first, next, quoted []byte) {
	quoted = append(appendText([]byte{'"'}, name), '"')
	first = append(append([]byte{'{'}, quoted...), ':')
	next = append(append([]byte{','}, quoted...), ':')
	return first, next, quoted
}

// fragmentsOf makes what stands between the values.
func (e *Encoder) fragmentsOf(p *plan) {
	if !e.json {
		if p.table != nil {
			p.ref = appendTagVarint(p.ref, 3, uint64(p.table.ID))
			p.ref = appendTagVarint(p.ref, 4, uint64(p.table.Version))
		}
		return
	}
	subject := ""
	if p.table != nil {
		subject = p.table.Subject()
	}
	for op := range p.head {
		name := pipeline.Op(op).String()
		h := append(appendText([]byte(`","source":"/sources/`), e.o.Source), `","type":"leat.`...)
		h = append(append(h, name...), '"')
		d := append(append([]byte(`","data":{"op":"`), name...), '"')
		if p.table != nil {
			h = append(append(append(h, `,"subject":"`...), subject...), '"')
			d = append(append(append(d, `,"table":"`...), subject...), '"')
		}
		p.head[op], p.data[op] = append(h, `,"time":"`...), d
	}
	p.mid = []byte(`","datacontenttype":"application/json"`)
	if p.table != nil {
		p.mid = append(p.mid, `,"dataschema":"`...)
		p.mid = append(appendText(p.mid, SchemaURL(e.o.PublicURL, e.o.Source, p.table)), '"')
	}
	p.mid = append(p.mid, `,"partitionkey":"`...)
}

// projection returns which columns of t are sent.
func projection(columns map[string][]string, t *schemas.Table) func(name string) bool {
	var lists [][]string
	for glob, list := range columns {
		if schemas.MatchTable(glob, t.Schema, t.Name) {
			lists = append(lists, list)
		}
	}
	return func(name string) bool {
		for _, list := range lists {
			in, positive := false, false
			for _, g := range list {
				if len(g) > 0 && g[0] == '!' {
					if match(g[1:], name) {
						return false
					}
					continue
				}
				positive = true
				in = in || match(g, name)
			}
			if positive && !in {
				return false
			}
		}
		return true
	}
}

// match reports whether s matches a glob in which * is any run of bytes and ? any one.
func match(glob, s string) bool {
	star, back := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(glob) && glob[i] == '*':
			star, back = i, j
			i++
		case i < len(glob) && (glob[i] == '?' || glob[i] == s[j]):
			i++
			j++
		case star >= 0:
			back++
			i, j = star+1, back
		default:
			return false
		}
	}
	for i < len(glob) && glob[i] == '*' {
		i++
	}
	return i == len(glob)
}

// appendTagVarint appends a protobuf field of wire type varint.
func appendTagVarint(dst []byte, field int, v uint64) []byte {
	return appendVarint(append(dst, byte(field<<3)), v)
}

func appendVarint(dst []byte, v uint64) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func appendUint(dst []byte, v uint64) []byte { return strconv.AppendUint(dst, v, 10) }
