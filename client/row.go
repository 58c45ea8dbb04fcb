package client

import (
	"database/sql"
	"encoding"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"sync"
	"time"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Row holds the values of a row's columns. The zero Row has none.
type Row struct {
	columns []*leatv1.Column
	index   map[string]int
	values  []*leatv1.Value
}

// Has reports whether the event has this image at all.
func (r Row) Has() bool { return len(r.values) > 0 }

// Value of a column, as [Row.All] says. ok is false where the table has no such column, or the value was not sent.
func (r Row) Value(column string) (v any, ok bool) {
	i, ok := r.index[column]
	if !ok {
		return nil, false
	}
	return value(r.values[i])
}

// All are the columns that were sent, in the table's order, and their values: nil for null, bool, int64, uint64,
// [Decimal], float32, float64, string (also what only the database's own text can say: intervals, infinite dates),
// []byte, [Bits], json.RawMessage, time.Time (dates, timestamps; in UTC, those without a zone too), time.Duration (times
// of day), []any (arrays), []float32 (vectors).
func (r Row) All() iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for i, v := range r.values {
			if x, ok := value(v); ok && !yield(r.columns[i].Name, x) {
				return
			}
		}
	}
}

// Map is All as a map.
func (r Row) Map() map[string]any {
	m := make(map[string]any, len(r.values))
	for name, v := range r.All() {
		m[name] = v
	}
	return m
}

// Scan fills the struct that dst points to: fields tagged `leat:"COLUMN"`, of the types that [Row.All] lists, of types
// that those convert to without loss, pointers to such (null is nil), or with a Scan (database/sql) or UnmarshalText
// method. Null makes a field that is no pointer its zero value; a field whose column was not sent keeps what it has.
func (r Row) Scan(dst any) error {
	p := reflect.ValueOf(dst)
	if p.Kind() != reflect.Pointer || p.IsNil() || p.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("leat: Scan needs a pointer to a struct, not %T", dst)
	}
	for _, f := range fieldsOf(p.Elem().Type()) {
		v, ok := r.Value(f.column)
		if !ok {
			continue
		}
		to, ok := inner(p.Elem(), f.index, v != nil)
		if !ok {
			if v == nil {
				continue // into a part that is not there
			}
			return fmt.Errorf("leat: column %s into field %s: it is within a nil pointer to a type that is not exported: set the pointer before", f.column, f.name)
		}
		if err := assign(to, v); err != nil {
			return fmt.Errorf("leat: column %s into field %s: %w", f.column, f.name, err)
		}
	}
	return nil
}

// inner is the field at index; embedded pointers on its way that are nil are made when fill says so. An embedded type
// that is not exported cannot be made.
func inner(v reflect.Value, index []int, fill bool) (reflect.Value, bool) {
	for i, n := range index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !fill || !v.CanSet() {
					return v, false
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(n)
	}
	return v, true
}

type field struct {
	column, name string
	index        []int
}

var known sync.Map // reflect.Type → []field

func fieldsOf(t reflect.Type) []field {
	if f, ok := known.Load(t); ok {
		return f.([]field)
	}
	var out []field
	for _, f := range reflect.VisibleFields(t) {
		if column := f.Tag.Get("leat"); column != "" && column != "-" && f.IsExported() {
			out = append(out, field{column, f.Name, f.Index})
		}
	}
	known.Store(t, out)
	return out
}

func assign(to reflect.Value, v any) error {
	if s, ok := to.Addr().Interface().(sql.Scanner); ok {
		return s.Scan(plain(v))
	}
	if v == nil {
		to.SetZero()
		return nil
	}
	if to.Kind() == reflect.Pointer {
		n := reflect.New(to.Type().Elem())
		if err := assign(n.Elem(), v); err != nil {
			return err
		}
		to.Set(n)
		return nil
	}
	from := reflect.ValueOf(v)
	if from.Type().AssignableTo(to.Type()) {
		to.Set(from)
		return nil
	}
	if u, ok := to.Addr().Interface().(encoding.TextUnmarshaler); ok && from.Kind() == reflect.String {
		return u.UnmarshalText([]byte(from.String()))
	}
	if raw, ok := v.(json.RawMessage); ok && to.Kind() != reflect.String {
		return json.Unmarshal(raw, to.Addr().Interface())
	}
	return convert(to, from)
}

// convert carries a value over between kinds where nothing is lost by it.
func convert(to, from reflect.Value) error {
	lost := fmt.Errorf("%v does not fit %s", from, to.Type())
	clock := reflect.TypeFor[time.Duration]()
	switch {
	case from.Type() == clock || to.Type() == clock: // a number of what?
		return fmt.Errorf("a value of Go type %s does not go into %s", from.Type(), to.Type())
	case to.Kind() == reflect.Interface && from.Type().Implements(to.Type()):
		to.Set(from)
	case to.CanInt() && from.CanInt():
		if to.OverflowInt(from.Int()) {
			return lost
		}
		to.SetInt(from.Int())
	case to.CanInt() && from.CanUint():
		if from.Uint() > 1<<63-1 || to.OverflowInt(int64(from.Uint())) {
			return lost
		}
		to.SetInt(int64(from.Uint()))
	case to.CanUint() && from.CanUint():
		if to.OverflowUint(from.Uint()) {
			return lost
		}
		to.SetUint(from.Uint())
	case to.CanUint() && from.CanInt():
		if from.Int() < 0 || to.OverflowUint(uint64(from.Int())) {
			return lost
		}
		to.SetUint(uint64(from.Int()))
	case to.Kind() == reflect.Float64 && from.CanFloat():
		to.SetFloat(from.Float())
	case to.Kind() == reflect.String && (from.Kind() == reflect.String || from.Type() == reflect.TypeFor[json.RawMessage]()):
		to.SetString(string(from.Convert(reflect.TypeFor[string]()).String()))
	case to.Kind() == reflect.Bool && (from.Kind() == reflect.Bool || from.CanInt() && from.Int()>>1 == 0): // tinyint(1)
		to.SetBool(from.Kind() == reflect.Bool && from.Bool() || from.CanInt() && from.Int() == 1)
	case to.Kind() == reflect.Slice && from.Kind() == reflect.Slice:
		return slice(to, from)
	default:
		return fmt.Errorf("a value of Go type %s does not go into %s", from.Type(), to.Type())
	}
	return nil
}

func slice(to, from reflect.Value) error {
	out := reflect.MakeSlice(to.Type(), from.Len(), from.Len())
	for i := range from.Len() {
		if err := assign(out.Index(i), from.Index(i).Interface()); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	to.Set(out)
	return nil
}

// plain is v as database/sql's Scanners expect it.
func plain(v any) any {
	switch v := v.(type) {
	case Decimal:
		return string(v)
	case Bits:
		return string(v)
	case json.RawMessage:
		return []byte(v)
	case float32:
		return float64(v)
	case uint64:
		if v <= 1<<63-1 {
			return int64(v)
		}
		return fmt.Sprint(v)
	case time.Duration:
		return v.String()
	}
	return v
}
