package config

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// Error is one thing wrong with the file. It prints as
//
//	leat.yaml:12:5: what is wrong
//	  12 |     retrys: {max: 1m}
//	     |     ^
//	  cure
type Error struct {
	File string // as it was given to Parse
	Line int    // from 1
	Col  int    // from 1, in characters
	Path string // dotted path of the value, "" for the file as a whole
	Msg  string // what is wrong
	Cure string // what to do about it; may be empty

	line  string // the line, masked and cut
	caret int    // characters before the caret
}

// Error prints position, message, the line and the cure.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s", e.File, e.Line, e.Col, e.Msg)
	if e.line != "" {
		num := fmt.Sprintf("%4d", e.Line)
		fmt.Fprintf(&b, "\n%s | %s\n%s | %s^", num, e.line, strings.Repeat(" ", len(num)), strings.Repeat(" ", e.caret))
	}
	if e.Cure != "" {
		fmt.Fprintf(&b, "\n     %s", e.Cure)
	}
	return b.String()
}

// Errors are all findings of one file, sorted by line.
type Errors []*Error

// Error prints all findings, one after the other.
func (e Errors) Error() string {
	s := make([]string, len(e))
	for i, x := range e {
		s[i] = x.Error()
	}
	return strings.Join(s, "\n")
}

// Unwrap gives each finding to errors.As.
func (e Errors) Unwrap() []error {
	s := make([]error, len(e))
	for i, x := range e {
		s[i] = x
	}
	return s
}

// problem is an error without a place; whoever knows the place adds it.
type problem struct{ msg, cure string }

func wrong(format string, args ...any) *problem { return &problem{msg: fmt.Sprintf(format, args...)} }

func (p *problem) fix(format string, args ...any) *problem {
	p.cure = fmt.Sprintf(format, args...)
	return p
}

// tooMany bounds what a broken file prints.
const tooMany = 100

func (d *document) fail(n *node, path, msg, cure string) {
	if len(d.errs) < tooMany {
		d.errs = append(d.errs, d.errorAt(n, path, msg, cure))
	}
}

func (d *document) sorted() Errors {
	for _, e := range d.errs { // by now it is known what is to be masked
		e.line, e.caret = d.excerpt(e.Line, e.Col)
	}
	sort.SliceStable(d.errs, func(i, j int) bool {
		a, b := d.errs[i], d.errs[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
	return d.errs
}

func (d *document) errorAt(n *node, path, msg, cure string) *Error {
	e := &Error{File: d.name, Line: 1, Col: 1, Path: path, Msg: msg, Cure: cure}
	if n != nil {
		e.Line, e.Col = n.line, n.col
	}
	e.line, e.caret = d.excerpt(e.Line, e.Col)
	return e
}

// excerpt returns the line with its secrets masked, and where the column lies
// in what remains.
func (d *document) excerpt(line, col int) (string, int) {
	if line < 1 || line > len(d.lines) {
		return "", 0
	}
	text, caret := maskSpans([]rune(d.lines[line-1]), col-1, d.secretSpans(line))
	r := []rune(text)
	for i, c := range r {
		if c == '\t' || c < ' ' || c == utf8.RuneError {
			r[i] = ' '
		}
	}
	caret = min(max(caret, 0), len(r))
	const width = 140
	if len(r) > width {
		from := max(0, min(caret-width/2, len(r)-width))
		r, caret = r[from:from+width], caret-from
	}
	return strings.TrimRight(string(r), " "), caret
}
