package filter

import (
	"cmp"
	"math"
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// closure evaluates part of an expression. Anything but yes, no and unknown sends the event to CEL, which
// has the last word on errors and on values of other kinds.
type closure func(*row) truth

// compiler turns what it can of an expression into closures.
type compiler struct{ x *expression }

// boolean compiles a condition; nil when closures cannot do it.
func (c *compiler) boolean(e ast.Expr) closure {
	switch e.Kind() {
	case ast.LiteralKind:
		if b, ok := e.AsLiteral().(types.Bool); ok {
			v := truthOf(bool(b))
			return func(*row) truth { return v }
		}
	case ast.SelectKind:
		if which, col, ok := c.column(e); ok {
			return compare(which, col, literal{kind: schemas.KindBool, n: 1}, func(v *cell.Value, _ literal) truth {
				if v.State != cell.Present || v.Kind != schemas.KindBool {
					return unsure
				}
				return truthOf(v.N != 0)
			})
		}
	case ast.CallKind:
		return c.call(e.AsCall())
	}
	return nil
}

func (c *compiler) call(e ast.CallExpr) closure {
	args := e.Args()
	switch e.FunctionName() {
	case operators.LogicalNot:
		return not(c.boolean(args[0]))
	case operators.LogicalAnd, operators.LogicalOr:
		a, b := c.boolean(args[0]), c.boolean(args[1])
		if a == nil || b == nil {
			return nil
		}
		if e.FunctionName() == operators.LogicalAnd {
			return both(a, b, no)
		}
		return both(a, b, yes)
	case operators.In, operators.OldIn:
		return c.in(args[0], args[1])
	case operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return c.comparison(e.FunctionName(), args[0], args[1])
	}
	return nil
}

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

func not(f closure) closure {
	if f == nil {
		return nil
	}
	return func(r *row) truth {
		switch v := f(r); v {
		case yes:
			return no
		case no:
			return yes
		default:
			return v
		}
	}
}

// both is && (decider no) and || (decider yes): one side that decides does, whatever the other is.
func both(a, b closure, decider truth) closure {
	return func(r *row) truth {
		x := a(r)
		if x == decider {
			return x
		}
		y := b(r)
		if y == decider {
			return y
		}
		return max(x, y) // unknown, failed and unsure are above the other of yes and no
	}
}

// column recognises before.x and after.x.
func (c *compiler) column(e ast.Expr) (which, col int, ok bool) {
	if e.Kind() != ast.SelectKind || e.AsSelect().IsTestOnly() {
		return 0, 0, false
	}
	if which, ok = imageOf(e.AsSelect().Operand()); !ok {
		return 0, 0, false
	}
	return which, slices.Index(c.x.columns, e.AsSelect().FieldName()), true
}

// literal is a constant of an expression.
type literal struct {
	kind schemas.Kind // Bool, Int, Float, Text; Unknown = null
	n    int64
	f    float64
	s    string
}

func literalOf(e ast.Expr) (l literal, ok bool) {
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.Negate {
		l, ok = literalOf(e.AsCall().Args()[0])
		if !ok || l.kind != schemas.KindInt && l.kind != schemas.KindFloat || l.n == math.MinInt64 {
			return l, false
		}
		l.n, l.f = -l.n, -l.f
		return l, true
	}
	if e.Kind() != ast.LiteralKind {
		return l, false
	}
	switch v := e.AsLiteral().(type) {
	case types.Bool:
		l.kind = schemas.KindBool
		if v {
			l.n = 1
		}
	case types.Int:
		l.kind, l.n = schemas.KindInt, int64(v)
	case types.Double:
		l.kind, l.f = schemas.KindFloat, float64(v)
	case types.String:
		l.kind, l.s = schemas.KindText, string(v)
	case types.Null:
		l.kind = schemas.KindUnknown
	default:
		return l, false
	}
	return l, true
}

var mirrored = map[string]string{operators.Less: operators.Greater, operators.LessEquals: operators.GreaterEquals,
	operators.Greater: operators.Less, operators.GreaterEquals: operators.LessEquals}

func (c *compiler) comparison(op string, a, b ast.Expr) closure {
	l, ok := literalOf(b)
	if !ok {
		if l, ok = literalOf(a); !ok {
			return nil
		}
		a = b
		if m, ok := mirrored[op]; ok {
			op = m
		}
	}
	if a.Kind() == ast.IdentKind {
		if l.kind != schemas.KindText || op != operators.Equals && op != operators.NotEquals {
			return nil
		}
		f := name(a.AsIdent(), []string{l.s})
		if op == operators.NotEquals {
			return not(f)
		}
		return f
	}
	which, col, ok := c.column(a)
	if !ok {
		return nil
	}
	switch op {
	case operators.Equals:
		return compare(which, col, l, equal)
	case operators.NotEquals:
		return not(compare(which, col, l, equal))
	}
	return compare(which, col, l, ordering(op))
}

// name compares op or table with constants.
func name(ident string, list []string) closure {
	switch ident {
	case "op":
		var ops [256]truth
		for o := range 256 {
			ops[o] = truthOf(slices.Contains(list, pipeline.Op(o).String()))
		}
		return func(r *row) truth { return ops[r.event.Op] }
	case "table":
		return func(r *row) truth {
			if r.plan.table == nil {
				return truthOf(slices.Contains(list, ""))
			}
			return truthOf(slices.Contains(list, r.plan.table.Subject()))
		}
	}
	return nil
}

// in compiles `x in [literals]`.
func (c *compiler) in(e, of ast.Expr) closure {
	if of.Kind() != ast.ListKind || len(of.AsList().OptionalIndices()) > 0 {
		return nil
	}
	var all []literal
	var texts []string
	for _, x := range of.AsList().Elements() {
		l, ok := literalOf(x)
		if !ok {
			return nil
		}
		all = append(all, l)
		if l.kind == schemas.KindText {
			texts = append(texts, l.s)
		}
	}
	if e.Kind() == ast.IdentKind {
		return name(e.AsIdent(), texts)
	}
	which, col, ok := c.column(e)
	if !ok {
		return nil
	}
	return compare(which, col, literal{}, func(v *cell.Value, _ literal) truth {
		for _, l := range all {
			if t := equal(v, l); t != no {
				return t
			}
		}
		return no
	})
}

// compare makes a closure over one column.
func compare(which, col int, l literal, with func(*cell.Value, literal) truth) closure {
	return func(r *row) truth {
		if !r.images[which].span.Present() {
			return unknown
		}
		n := r.plan.columns[col]
		if n < 0 {
			return failed
		}
		v := &r.cell // not of the stack: Decode is a variable, so it would escape
		if err := r.value(v, which, n); err != nil {
			return failed
		}
		if v.State == cell.Absent {
			return unknown
		}
		return with(v, l)
	}
}

// exact is up to where every integer is a float of its own.
const exact = 1 << 53

// equal is CEL's ==: values of different types are different.
func equal(v *cell.Value, l literal) truth {
	if v.State == cell.Present && v.Kind == schemas.KindJSON {
		return unsure // its content may be any value, null too
	}
	if v.State == cell.Null || l.kind == schemas.KindUnknown {
		return truthOf(v.State == cell.Null && l.kind == schemas.KindUnknown)
	}
	c, ok := order(v, l)
	if ok {
		return truthOf(c == 0)
	}
	switch v.Kind {
	case schemas.KindBool, schemas.KindText, schemas.KindDecimal, schemas.KindUnknown:
		return no
	case schemas.KindInt:
		if l.kind == schemas.KindText || l.kind == schemas.KindBool {
			return no
		}
	}
	return unsure
}

func ordering(op string) func(*cell.Value, literal) truth {
	return func(v *cell.Value, l literal) truth {
		if v.State != cell.Present {
			return failed
		}
		c, ok := order(v, l)
		if !ok {
			return unsure
		}
		switch op {
		case operators.Less:
			return truthOf(c < 0)
		case operators.LessEquals:
			return truthOf(c <= 0)
		case operators.Greater:
			return truthOf(c > 0)
		default:
			return truthOf(c >= 0)
		}
	}
}

// order compares values of one type, and integers with floats where that is exact; else ok is false.
func order(v *cell.Value, l literal) (c int, ok bool) {
	switch v.Kind {
	case schemas.KindBool:
		return cmp.Compare(int64(v.N), l.n), l.kind == schemas.KindBool
	case schemas.KindText, schemas.KindDecimal, schemas.KindUnknown:
		if l.kind != schemas.KindText {
			return 0, false
		}
		return compareText(v.B, l.s), true
	case schemas.KindUint:
		if v.N > math.MaxInt64 {
			return 0, false
		}
		fallthrough
	case schemas.KindInt:
		n := int64(v.N)
		switch {
		case l.kind == schemas.KindInt:
			return cmp.Compare(n, l.n), true
		case l.kind == schemas.KindFloat && n > -exact && n < exact:
			return cmp.Compare(float64(n), l.f), !math.IsNaN(l.f)
		}
	case schemas.KindFloat:
		f := v.Float()
		switch {
		case math.IsNaN(f):
			return 0, false
		case l.kind == schemas.KindFloat:
			return cmp.Compare(f, l.f), !math.IsNaN(l.f)
		case l.kind == schemas.KindInt && l.n > -exact && l.n < exact:
			return cmp.Compare(f, float64(l.n)), true
		}
	}
	return 0, false
}

func compareText(b []byte, s string) int {
	switch {
	case string(b) < s:
		return -1
	case string(b) > s:
		return 1
	}
	return 0
}
