package parquet

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	pq "github.com/parquet-go/parquet-go"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Columns that stand before the table's own.
const (
	colOp       = "_op"
	colOffset   = "_offset"
	colTime     = "_time"
	colTx       = "_tx"
	colPosition = "_position"
	colAbsent   = "_absent" // names of the columns that were not sent
	colText     = "_text"   // values that their column's type cannot hold, in the database's own text
	colReplay   = "_replay"
)

// form is how values of a column are put into Parquet.
type form uint8

const (
	asText form = iota
	asBool
	asInt32
	asInt64
	asFloat
	asDouble
	asBytes
	asDecimal
	asDate
	asTime
	asMicros
)

// column of a file.
type column struct {
	name  string
	form  form
	list  bool
	scale int
	width int // bytes of a decimal
}

// plan is how the events of a table version become rows.
type plan struct {
	schema  *pq.Schema
	columns []column
	key     []int // columns of Event.key; -1: the subscription leaves it out
}

// ordered is a group whose fields stand in the table's order, not in that of their names.
type ordered struct {
	pq.Group
	names []string
}

// Fields implements parquet.Node.
func (o ordered) Fields() []pq.Field {
	fields := o.Group.Fields()
	slices.SortFunc(fields, func(a, b pq.Field) int { return slices.Index(o.names, a.Name()) - slices.Index(o.names, b.Name()) })
	return fields
}

// newPlan makes a plan; t nil is that of messages, which are of no table.
func newPlan(t *leatv1.Table) *plan {
	p := &plan{}
	names := []string{colOp, colOffset, colTime, colTx, colPosition, colAbsent, colText, colReplay}
	group := pq.Group{
		colOp: pq.String(), colOffset: pq.Int(64), colTime: pq.Timestamp(pq.Microsecond), colTx: pq.Optional(pq.String()), colPosition: pq.Optional(pq.String()),
		colAbsent: pq.Optional(pq.List(pq.String())), colText: pq.Optional(pq.Map(pq.String(), pq.String())), colReplay: pq.Optional(pq.String()),
	}
	if t == nil {
		names = append(names, "prefix", "content")
		group["prefix"], group["content"] = pq.String(), pq.Leaf(pq.ByteArrayType)
	}
	taken := map[string]bool{"table": true, "date": true}
	for _, n := range names {
		taken[n] = true
	}
	for _, c := range t.GetColumns() {
		name := free(c.Name, taken)
		node, col := columnOf(c)
		col.name = name
		p.columns, names = append(p.columns, col), append(names, name)
		group[name] = pq.Optional(node)
	}
	for _, k := range t.GetIdentity() {
		p.key = append(p.key, slices.IndexFunc(t.Columns, func(c *leatv1.Column) bool { return c.Name == k }))
	}
	p.schema = pq.NewSchema("leat", ordered{group, names})
	return p
}

// free returns a name that no column has yet, also for readers to whom case is all one: a table may call one of its own
// as we do, or as a folder is called.
func free(name string, taken map[string]bool) string {
	for taken[strings.ToLower(name)] {
		name += "_"
	}
	taken[strings.ToLower(name)] = true
	return name
}

var numeric = regexp.MustCompile(`\((\d+)(?:,\s*(-?\d+))?\)`)

// mostDigits of a decimal that readers take; more digits are text.
const mostDigits = 38

func columnOf(c *leatv1.Column) (pq.Node, column) {
	if c.Kind == leatv1.Kind_KIND_ARRAY {
		bits := uint32(0) // how wide elements are is told by their type only
		if strings.HasPrefix(c.Type, "real") {
			bits = 32
		}
		node, col := scalar(c.Elem, bits, c.Type)
		col.list = true
		return pq.List(pq.Optional(node)), col
	}
	if c.Kind == leatv1.Kind_KIND_VECTOR {
		return pq.List(pq.Optional(pq.Leaf(pq.FloatType))), column{form: asFloat, list: true}
	}
	return scalar(c.Kind, c.Bits, c.Type)
}

func scalar(kind leatv1.Kind, bits uint32, typ string) (pq.Node, column) {
	width := 64
	for _, w := range []int{8, 16, 32} {
		if bits > 0 && int(bits) <= w {
			width = w
			break
		}
	}
	number := column{form: asInt64}
	if width <= 32 {
		number.form = asInt32
	}
	switch kind {
	case leatv1.Kind_KIND_BOOL:
		return pq.Leaf(pq.BooleanType), column{form: asBool}
	case leatv1.Kind_KIND_INT:
		return pq.Int(width), number
	case leatv1.Kind_KIND_UINT:
		return pq.Uint(width), number
	case leatv1.Kind_KIND_FLOAT:
		if bits == 32 {
			return pq.Leaf(pq.FloatType), column{form: asFloat}
		}
		return pq.Leaf(pq.DoubleType), column{form: asDouble}
	case leatv1.Kind_KIND_DECIMAL:
		return decimal(typ)
	case leatv1.Kind_KIND_BYTES:
		return pq.Leaf(pq.ByteArrayType), column{form: asBytes}
	case leatv1.Kind_KIND_DATE:
		return pq.Date(), column{form: asDate}
	case leatv1.Kind_KIND_TIME:
		if strings.Contains(typ, "without") { // PostgreSQL's; MySQL's may be negative or beyond a day, and is microseconds
			return pq.TimeAdjusted(pq.Microsecond, false), column{form: asTime}
		}
		return pq.Int(64), column{form: asMicros}
	case leatv1.Kind_KIND_DATETIME:
		return pq.TimestampAdjusted(pq.Microsecond, false), column{form: asMicros}
	case leatv1.Kind_KIND_TIMESTAMP:
		return pq.Timestamp(pq.Microsecond), column{form: asMicros}
	}
	return pq.String(), column{form: asText}
}

func decimal(typ string) (pq.Node, column) {
	m := numeric.FindStringSubmatch(typ)
	if m == nil {
		return pq.String(), column{form: asText}
	}
	digits, _ := strconv.Atoi(m[1]) // of digits, and few
	scale, _ := strconv.Atoi(m[2])
	if digits == 0 || digits > mostDigits || scale < 0 || scale > digits {
		return pq.String(), column{form: asText}
	}
	width := 16
	return pq.Decimal(scale, digits, pq.FixedLenByteArrayType(width)), column{form: asDecimal, scale: scale, width: width}
}
