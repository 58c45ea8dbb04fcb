// Package filter decides which events a subscription gets.
//
// A [Program] is compiled once from table globs and an expression in CEL; a [Filter] is one goroutine's
// use of it. Both work on whole batches and on cells in wire form: only the columns that the expression
// names are decoded.
package filter

import (
	"github.com/leat-cdc/leat/pipeline"
)

// Failure is an event that the expression failed on: it is to be dead-lettered, not dropped.
type Failure struct {
	// Index of the event in its batch.
	Index  uint32
	Reason string
}

// Program is a compiled filter. Safe for concurrent use.
type Program struct{}

// Filter is one goroutine's use of a Program.
type Filter struct{ p *Program }

// New returns a Filter of its own for the calling goroutine.
func (p *Program) New() *Filter { return &Filter{p: p} }

// Select appends to runs what of b.Events[from:to] passes, in order, and to fails what the expression
// failed on.
func (f *Filter) Select(b *pipeline.Batch, from, to int, runs []pipeline.Run, fails []Failure) ([]pipeline.Run, []Failure) {
	return append(runs, pipeline.Run{Batch: b, From: uint32(from), To: uint32(to)}), fails
}
