package filter

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// celValue makes a CEL value of a decoded cell that is not absent. The result does not alias it.
func celValue(v *cell.Value, t *schemas.Type) ref.Val {
	if v.State == cell.Null {
		return types.NullValue
	}
	switch v.Kind {
	case schemas.KindBool:
		return types.Bool(v.N != 0)
	case schemas.KindInt:
		return types.Int(int64(v.N))
	case schemas.KindUint:
		if v.N <= math.MaxInt64 {
			return types.Int(int64(v.N))
		}
		return types.Uint(v.N)
	case schemas.KindFloat:
		return types.Double(v.Float())
	case schemas.KindBytes:
		return types.Bytes(slices.Clone(v.B))
	case schemas.KindBits:
		if t != nil && t.Kind == schemas.KindBits && t.Length == 1 {
			return types.Bool(string(v.B) == "1")
		}
	case schemas.KindJSON:
		var x any
		if err := json.Unmarshal(v.B, &x); err != nil {
			return types.NewErr("read JSON: %v", err)
		}
		return types.DefaultTypeAdapter.NativeToValue(x)
	case schemas.KindDate:
		return types.String(time.Unix(int64(v.N)*86400, 0).UTC().Format(time.DateOnly))
	case schemas.KindTime:
		return types.String(clock(int64(v.N)))
	case schemas.KindDateTime:
		return types.String(time.UnixMicro(int64(v.N)).UTC().Format("2006-01-02T15:04:05.999999"))
	case schemas.KindTimestamp:
		return types.Timestamp{Time: time.UnixMicro(int64(v.N)).UTC()}
	case schemas.KindArray, schemas.KindVector:
		var elem *schemas.Type
		if t != nil {
			elem = t.Elem
		}
		list := make([]ref.Val, len(v.Elems))
		for i := range v.Elems {
			list[i] = celValue(&v.Elems[i], elem)
		}
		return types.NewRefValList(types.DefaultTypeAdapter, list)
	}
	return types.String(v.B)
}

// message makes a CEL value of a logical message: its prefix, and its content, which is a text unless it is JSON.
func message(r *row) ref.Val {
	if r.event.Op != pipeline.OpMessage {
		return types.NullValue
	}
	text := r.batch.Bytes(r.event.After)
	var content any
	if json.Unmarshal(text, &content) != nil {
		content = string(text)
	}
	return types.DefaultTypeAdapter.NativeToValue(map[string]any{"prefix": string(r.batch.Bytes(r.event.Before)), "content": content})
}

// clock writes microseconds as [-]HH:MM:SS[.ffffff]; hours may exceed 23.
func clock(us int64) string {
	sign := ""
	n := uint64(us)
	if us < 0 {
		sign, n = "-", -n
	}
	s := fmt.Sprintf("%s%02d:%02d:%02d", sign, n/3_600_000_000, n/60_000_000%60, n/1_000_000%60)
	if f := n % 1_000_000; f > 0 {
		d := fmt.Sprintf("%06d", f)
		for d[len(d)-1] == '0' {
			d = d[:len(d)-1]
		}
		s += "." + d
	}
	return s
}

// celImage is a row image, or its identity columns, as a CEL map that decodes what is asked for.
type celImage struct {
	eval     *celEval
	which    int
	identity bool
}

// Find implements traits.Mapper.
func (m *celImage) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(key), false
	}
	t := m.eval.r.plan.table
	i := t.Column(string(name))
	if i < 0 || t.Columns[i].Dropped || m.identity && !slices.Contains(t.Identity, i) {
		return nil, false
	}
	return m.eval.column(m.which, i), true
}

// Get implements traits.Indexer.
func (m *celImage) Get(key ref.Val) ref.Val {
	v, ok := m.Find(key)
	if !ok {
		if v != nil {
			return v
		}
		return types.NewErr("no such column: %v", key)
	}
	return v
}

// whole decodes every column that is there, for what looks at the map as a whole.
func (m *celImage) whole() traits.Mapper {
	all := map[string]ref.Val{}
	t := m.eval.r.plan.table
	for i := range t.Columns {
		if v, ok := m.Find(types.String(t.Columns[i].Name)); ok && !types.IsUnknown(v) {
			all[t.Columns[i].Name] = v
		}
	}
	return types.DefaultTypeAdapter.NativeToValue(all).(traits.Mapper)
}

// Contains implements traits.Container.
func (m *celImage) Contains(key ref.Val) ref.Val {
	_, ok := m.Find(key)
	return types.Bool(ok)
}

// Iterator implements traits.Iterable.
func (m *celImage) Iterator() traits.Iterator { return m.whole().Iterator() }

// Size implements traits.Sizer.
func (m *celImage) Size() ref.Val { return m.whole().Size() }

// ConvertToNative implements ref.Val.
func (m *celImage) ConvertToNative(t reflect.Type) (any, error) { return m.whole().ConvertToNative(t) }

// ConvertToType implements ref.Val.
func (m *celImage) ConvertToType(t ref.Type) ref.Val { return m.whole().ConvertToType(t) }

// Equal implements ref.Val.
func (m *celImage) Equal(other ref.Val) ref.Val {
	if o, ok := other.(*celImage); ok {
		other = o.whole()
	}
	return m.whole().Equal(other)
}

// Type implements ref.Val.
func (m *celImage) Type() ref.Type { return types.MapType }

// Value implements ref.Val.
func (m *celImage) Value() any { return m.whole().Value() }
