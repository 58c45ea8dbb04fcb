package yamltree

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

// Problem is an error without a place; whoever knows the place adds it.
type Problem struct{ Msg, Cure string }

// Wrong makes a Problem out of a format.
func Wrong(format string, args ...any) *Problem { return &Problem{Msg: fmt.Sprintf(format, args...)} }

// Fix adds the cure.
func (p *Problem) Fix(format string, args ...any) *Problem {
	p.Cure = fmt.Sprintf(format, args...)
	return p
}

// tooMany bounds what a broken file prints.
const tooMany = 100

// Fail notes a finding at n (nil: the file as a whole).
func (d *Document) Fail(n *Node, path, msg, cure string) {
	if len(d.Errs) < tooMany {
		d.Errs = append(d.Errs, d.ErrorAt(n, path, msg, cure))
	}
}

// Sorted are the findings by line, each with its line masked by all that is known by now.
func (d *Document) Sorted() Errors {
	for _, e := range d.Errs { // by now it is known what is to be masked
		e.line, e.caret = d.excerpt(e.Line, e.Col)
	}
	sort.SliceStable(d.Errs, func(i, j int) bool {
		a, b := d.Errs[i], d.Errs[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Col < b.Col
	})
	return d.Errs
}

// ErrorAt makes a finding without noting it.
func (d *Document) ErrorAt(n *Node, path, msg, cure string) *Error {
	e := &Error{File: d.Name, Line: 1, Col: 1, Path: path, Msg: msg, Cure: cure}
	if n != nil {
		e.Line, e.Col = n.Line, n.Col
	}
	e.line, e.caret = d.excerpt(e.Line, e.Col)
	return e
}

// longestShown bounds the lines that are shown, in bytes. A secret may begin anywhere before the part that fits, so
// that all of a line is searched before it is cut; for a line of 1 MiB that takes seconds.
const longestShown = 16 << 10

// excerpt returns the line with its secrets masked, and where the column lies
// in what remains; nothing of a line that is too long.
func (d *Document) excerpt(line, col int) (string, int) {
	if line < 1 || line > len(d.lines) || len(d.lines[line-1]) > longestShown {
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
