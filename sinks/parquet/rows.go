package parquet

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	pq "github.com/parquet-go/parquet-go"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// row is the Parquet row of an event.
func (p *plan) row(e *leatv1.Event, op string) (pq.Row, error) {
	values := e.GetAfter().GetValues()
	if values == nil {
		values = e.GetBefore().GetValues()
	}
	if values != nil && len(values) != len(p.columns) {
		return nil, fmt.Errorf("event %d has %d values for %d columns", e.Offset, len(values), len(p.columns))
	}
	if values == nil && len(e.Key) == len(p.key) && len(e.Key) > 0 {
		values = make([]*leatv1.Value, len(p.columns))
		for i, v := range e.Key {
			if at := p.key[i]; at >= 0 {
				values[at] = v
			}
		}
	}
	var absent []string
	text := map[string]string{}
	own := cells{at: ownColumns}
	if e.Message != nil {
		own.one(pq.ByteArrayValue([]byte(e.Message.Prefix)), 0)
		own.one(pq.ByteArrayValue(e.Message.Content), 0)
	}
	for i := range p.columns {
		c := &p.columns[i]
		var v *leatv1.Value
		if values != nil {
			v = values[i]
		}
		if _, ok := v.GetKind().(*leatv1.Value_Absent); ok && e.After != nil {
			absent = append(absent, c.name)
		}
		if why := own.column(c, v); why != "" {
			text[c.name] = why
		}
	}
	head := cells{row: make(pq.Row, 0, 16+len(own.row))}
	head.one(pq.ByteArrayValue([]byte(op)), 0)
	head.one(pq.Int64Value(int64(e.Offset)), 0)
	head.one(pq.Int64Value(e.TimeMicros), 0)
	head.maybe(e.GetTx().GetId())
	head.maybe(e.Position)
	head.names(absent)
	head.pairs(text)
	head.maybe(e.Replay)
	return append(head.row, own.row...), nil
}

// ownColumns is the index of the first leaf behind the head's: _text has two.
const ownColumns = 9

// cells gathers the values of a row, leaf by leaf.
type cells struct {
	row pq.Row
	at  int
}

func (c *cells) one(v pq.Value, defined int) {
	c.row = append(c.row, v.Level(0, defined, c.at))
	c.at++
}

func (c *cells) null() { c.one(pq.NullValue(), 0) }

func (c *cells) maybe(s string) {
	if s == "" {
		c.null()
	} else {
		c.one(pq.ByteArrayValue([]byte(s)), 1)
	}
}

// names is an optional list of texts that are there.
func (c *cells) names(list []string) {
	if len(list) == 0 {
		c.null()
		return
	}
	for i, s := range list {
		c.row = append(c.row, pq.ByteArrayValue([]byte(s)).Level(min(i, 1), 2, c.at))
	}
	c.at++
}

// pairs is an optional map of texts.
func (c *cells) pairs(m map[string]string) {
	if len(m) == 0 {
		c.null()
		c.null()
		return
	}
	var keys, values pq.Row
	for _, k := range slices.Sorted(maps.Keys(m)) { // the same stage is the same file
		again := min(len(keys), 1)
		keys = append(keys, pq.ByteArrayValue([]byte(k)).Level(again, 2, c.at))
		values = append(values, pq.ByteArrayValue([]byte(m[k])).Level(again, 2, c.at+1))
	}
	c.row = append(append(c.row, keys...), values...)
	c.at += 2
}

// column appends a column's value. A value that the type has no form for is null, and returned as text.
func (c *cells) column(col *column, v *leatv1.Value) (text string) {
	if !given(v) {
		c.null()
		return ""
	}
	if col.list {
		return c.listed(col, v)
	}
	x, ok := col.value(v)
	if !ok {
		c.null()
		return plain(v)
	}
	c.one(x, 1)
	return ""
}

func given(v *leatv1.Value) bool {
	switch v.GetKind().(type) {
	case nil, *leatv1.Value_Null, *leatv1.Value_Absent:
		return false
	}
	return true
}

// listed appends a list: levels are 0 null, 1 empty, 2 a null in it, 3 a value.
func (c *cells) listed(col *column, v *leatv1.Value) string {
	var elems []pq.Value
	whole := true
	switch k := v.Kind.(type) {
	case *leatv1.Value_Array:
		for _, e := range k.Array.GetValues() {
			x, ok := pq.NullValue(), true
			if given(e) {
				x, ok = col.value(e)
			}
			whole = whole && ok
			elems = append(elems, x)
		}
	case *leatv1.Value_Vector:
		for _, f := range k.Vector.GetValues() {
			elems = append(elems, pq.FloatValue(f))
		}
	default:
		whole = false
	}
	if !whole { // of several dimensions, or of other bounds
		c.null()
		return plain(v)
	}
	if len(elems) == 0 {
		c.one(pq.NullValue(), 1)
		return ""
	}
	for i, x := range elems {
		defined := 3
		if x.IsNull() {
			defined = 2
		}
		c.row = append(c.row, x.Level(min(i, 1), defined, c.at))
	}
	c.at++
	return ""
}

// value is v in the column's form.
func (c *column) value(v *leatv1.Value) (pq.Value, bool) {
	switch k := v.Kind.(type) {
	case *leatv1.Value_Boolean:
		return pq.BooleanValue(k.Boolean), c.form == asBool
	case *leatv1.Value_Integer:
		if c.form == asInt32 {
			return pq.Int32Value(int32(k.Integer)), true
		}
		return pq.Int64Value(k.Integer), c.form == asInt64
	case *leatv1.Value_Unsigned:
		if c.form == asInt32 {
			return pq.Int32Value(int32(k.Unsigned)), true
		}
		return pq.Int64Value(int64(k.Unsigned)), c.form == asInt64
	case *leatv1.Value_Float32:
		if c.form == asDouble { // of a list
			return pq.DoubleValue(float64(k.Float32)), true
		}
		return pq.FloatValue(k.Float32), c.form == asFloat
	case *leatv1.Value_Float64:
		return pq.DoubleValue(k.Float64), c.form == asDouble
	case *leatv1.Value_Decimal:
		if c.form == asText {
			return pq.ByteArrayValue([]byte(k.Decimal)), true
		}
		return c.decimal(k.Decimal)
	case *leatv1.Value_Text:
		return pq.ByteArrayValue([]byte(k.Text)), c.form == asText
	case *leatv1.Value_Bits:
		return pq.ByteArrayValue([]byte(k.Bits)), c.form == asText
	case *leatv1.Value_Json:
		return pq.ByteArrayValue([]byte(k.Json)), c.form == asText
	case *leatv1.Value_Blob:
		return pq.ByteArrayValue(k.Blob), c.form == asBytes
	case *leatv1.Value_DateDays:
		return pq.Int32Value(k.DateDays), c.form == asDate
	case *leatv1.Value_TimeMicros:
		const day = 24 * int64(time.Hour/time.Microsecond)
		return pq.Int64Value(k.TimeMicros), c.form == asMicros || c.form == asTime && k.TimeMicros >= 0 && k.TimeMicros < day
	case *leatv1.Value_DatetimeMicros:
		return pq.Int64Value(k.DatetimeMicros), c.form == asMicros
	case *leatv1.Value_TimestampMicros:
		return pq.Int64Value(k.TimestampMicros), c.form == asMicros
	}
	return pq.NullValue(), false
}

// decimal is a number of so many digits behind the point, as a big-endian two's complement.
func (c *column) decimal(s string) (pq.Value, bool) {
	whole, part, _ := strings.Cut(s, ".")
	if c.form != asDecimal || len(part) > c.scale {
		return pq.NullValue(), false
	}
	n, ok := new(big.Int).SetString(whole+part+strings.Repeat("0", c.scale-len(part)), 10)
	if !ok || n.BitLen() > 8*c.width-1 {
		return pq.NullValue(), false
	}
	if n.Sign() < 0 {
		n.Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*c.width)))
	}
	return pq.FixedLenByteArrayValue(n.FillBytes(make([]byte, c.width))), true
}

// plain is a value as text, for what its column's type cannot hold.
func plain(v *leatv1.Value) string {
	switch k := v.Kind.(type) {
	case *leatv1.Value_Text:
		return k.Text
	case *leatv1.Value_Decimal:
		return k.Decimal
	case *leatv1.Value_TimeMicros:
		return strconv.FormatInt(k.TimeMicros, 10)
	}
	text, err := json.Marshal(tree(v))
	if err != nil { // NaN and infinities within arrays
		return fmt.Sprint(tree(v))
	}
	return string(text)
}

// tree is a value as encoding/json takes it.
func tree(v *leatv1.Value) any {
	switch k := v.GetKind().(type) {
	case *leatv1.Value_Array:
		out := make([]any, 0, len(k.Array.GetValues()))
		for _, e := range k.Array.GetValues() {
			out = append(out, tree(e))
		}
		return out
	case *leatv1.Value_Boolean:
		return k.Boolean
	case *leatv1.Value_Integer:
		return k.Integer
	case *leatv1.Value_Unsigned:
		return k.Unsigned
	case *leatv1.Value_Float32:
		return k.Float32
	case *leatv1.Value_Float64:
		return k.Float64
	case *leatv1.Value_Decimal:
		return k.Decimal
	case *leatv1.Value_Text:
		return k.Text
	case *leatv1.Value_Bits:
		return k.Bits
	case *leatv1.Value_Json:
		return json.RawMessage(k.Json)
	case *leatv1.Value_Blob:
		return k.Blob
	case *leatv1.Value_DateDays:
		return time.Unix(int64(k.DateDays)*86400, 0).UTC().Format(time.DateOnly)
	case *leatv1.Value_DatetimeMicros:
		return time.UnixMicro(k.DatetimeMicros).UTC().Format("2006-01-02T15:04:05.999999")
	case *leatv1.Value_TimestampMicros:
		return time.UnixMicro(k.TimestampMicros).UTC().Format(time.RFC3339Nano)
	case *leatv1.Value_TimeMicros:
		return k.TimeMicros
	}
	return nil
}
