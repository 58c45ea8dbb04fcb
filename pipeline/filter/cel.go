package filter

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas/cell"
)

// ExprError is what is wrong with an expression, and where in it.
type ExprError struct {
	// Line and Column from 1, within the expression.
	Line, Column int
	What         string
}

// Error begins with the place.
func (e *ExprError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.What)
}

// costLimit bounds the work for one event, in CEL's units (about one per operation): a comprehension
// over a large JSON value must not stall the subscription.
const costLimit = 1_000_000

// expression is a compiled expression.
type expression struct {
	program cel.Program
	root    ast.Expr
	// columns that it names, by which plans find them; columns[n] has the number n in closures.
	columns []string
	// images that it names: before, after.
	images [2]bool
	// message: it names the message of an event; rows: what only a row has.
	message, rows bool
	fast          closure // nil: only CEL can
}

var variables = []string{"op", "table", "key", "before", "after", "message", "tx", "time"}

func compile(text string) (*expression, error) {
	env, err := cel.NewEnv(cel.Variable("op", cel.StringType), cel.Variable("table", cel.StringType), cel.Variable("key", cel.DynType),
		cel.Variable("before", cel.DynType), cel.Variable("after", cel.DynType), cel.Variable("message", cel.DynType), cel.Variable("tx", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("time", cel.TimestampType), cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true))
	if err != nil {
		return nil, fmt.Errorf("set up CEL: %w", err)
	}
	checked, issues := env.Compile(text)
	if issues != nil && len(issues.Errors()) > 0 {
		e := issues.Errors()[0]
		what, _, _ := strings.Cut(e.Message, "\n")
		if strings.Contains(what, "undeclared reference") {
			what += "; there are " + strings.Join(variables, ", ")
		}
		return nil, &ExprError{Line: max(1, e.Location.Line()), Column: max(0, e.Location.Column()) + 1, What: what}
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, &ExprError{Line: 1, Column: 1, What: fmt.Sprintf("a filter is true or false, this is of type %s", t)}
	}
	x := &expression{}
	if x.program, err = env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(costLimit)); err != nil {
		return nil, &ExprError{Line: 1, Column: 1, What: err.Error()}
	}
	root := checked.NativeRep().Expr()
	x.root = root
	x.names(root)
	c := &compiler{x: x}
	x.fast = c.boolean(root)
	return x, nil
}

// names collects the columns and images that the expression speaks of.
func (x *expression) names(root ast.Expr) {
	ast.PreOrderVisit(root, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			if n := slices.Index([]string{"before", "after"}, e.AsIdent()); n >= 0 {
				x.images[n] = true
			}
			x.message = x.message || e.AsIdent() == "message"
			x.rows = x.rows || slices.Contains([]string{"before", "after", "key"}, e.AsIdent())
		case ast.SelectKind:
			if _, ok := imageOf(e.AsSelect().Operand()); ok && !slices.Contains(x.columns, e.AsSelect().FieldName()) {
				x.columns = append(x.columns, e.AsSelect().FieldName())
			}
		}
	}))
}

// Columns are the names that the expression reads as before.X, after.X or key.X, sorted. What it asks for
// with has(…) is left out: it need not be there.
func (p *Program) Columns() []string {
	if p.expr == nil {
		return nil
	}
	asked := map[string]bool{}
	ast.PreOrderVisit(p.expr.root, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.SelectKind {
			return
		}
		sel := e.AsSelect()
		if _, image := imageOf(sel.Operand()); image || sel.Operand().Kind() == ast.IdentKind && sel.Operand().AsIdent() == "key" {
			asked[sel.FieldName()] = asked[sel.FieldName()] || sel.IsTestOnly()
		}
	}))
	var names []string
	for name, test := range asked {
		if !test {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// OfRows reports whether the expression speaks of a row: a source of messages has none.
func (p *Program) OfRows() bool { return p.expr != nil && p.expr.rows }

// imageOf tells which image an expression is.
func imageOf(e ast.Expr) (which int, ok bool) {
	if e.Kind() != ast.IdentKind {
		return 0, false
	}
	switch e.AsIdent() {
	case "before":
		return before, true
	case "after":
		return after, true
	}
	return 0, false
}

// celEval is one goroutine's way to evaluate: the activation, which resolves names when asked.
type celEval struct {
	x      *expression
	r      *row
	images [2]celImage
	key    celImage
}

func newCELEval(x *expression) *celEval {
	c := &celEval{x: x}
	c.images[before], c.images[after] = celImage{eval: c, which: before}, celImage{eval: c, which: after}
	return c
}

func (c *celEval) eval(r *row) (truth, error) {
	c.r = r
	v, _, err := c.x.program.Eval(c)
	if err != nil {
		// A column of an image that the event does not have is as good as not sent.
		for n, named := range c.x.images {
			if named && !r.images[n].span.Present() {
				return unknown, nil
			}
		}
		if c.x.message && r.event.Op != pipeline.OpMessage {
			return unknown, nil
		}
		return failed, err
	}
	switch {
	case types.IsUnknown(v):
		return unknown, nil
	case v == types.True:
		return yes, nil
	case v == types.False:
		return no, nil
	}
	return failed, fmt.Errorf("it gave %s, not true or false", v.Type().TypeName())
}

// Parent implements cel.Activation.
func (c *celEval) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (c *celEval) ResolveName(name string) (any, bool) {
	r := c.r
	switch name {
	case "op":
		return types.String(r.event.Op.String()), true
	case "table":
		if r.plan.table == nil {
			return types.String(""), true
		}
		return types.String(r.plan.table.Subject()), true
	case "before", "after":
		n := slices.Index([]string{"before", "after"}, name)
		if !r.images[n].span.Present() {
			return types.NullValue, true
		}
		return &c.images[n], true
	case "key":
		n := after
		if !r.images[n].span.Present() {
			n = before
		}
		if !r.images[n].span.Present() {
			return types.NullValue, true
		}
		c.key = celImage{eval: c, which: n, identity: true}
		return &c.key, true
	case "message":
		return message(r), true
	case "tx":
		tx := &r.batch.Txs[r.event.Tx]
		return types.NewStringStringMap(types.DefaultTypeAdapter, map[string]string{"id": string(r.batch.Bytes(tx.ID)), "position": string(r.batch.Bytes(tx.Position))}), true
	case "time":
		return types.Timestamp{Time: time.UnixMicro(r.batch.Txs[r.event.Tx].Time).UTC()}, true
	}
	return nil, false
}

// column makes a CEL value of a column.
func (c *celEval) column(which, column int) ref.Val {
	var v cell.Value
	if err := c.r.value(&v, which, column); err != nil {
		return types.WrapErr(err)
	}
	if v.State == cell.Absent {
		return types.NewUnknown(0, types.NewAttributeTrail(c.r.plan.table.Columns[column].Name))
	}
	return celValue(&v, &c.r.plan.table.Columns[column].Type)
}
