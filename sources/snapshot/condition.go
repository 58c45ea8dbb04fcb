package snapshot

import (
	"errors"
	"strings"
)

// Dialect says how a database reads an SQL text.
type Dialect int

// The dialects.
const (
	Postgres Dialect = iota
	MySQL
)

// Errors of a condition.
var (
	errBrackets = errors.New("its brackets are not balanced")
	errOpen     = errors.New("a quote or comment in it does not end")
	errSlash    = errors.New(`a backslash stands before a quote: write the quote twice, and a last backslash as chr(92) or char(92)`)
	errHidden   = errors.New("it has a comment in a comment, or one that the server runs")
	errByte     = errors.New("it has a control character")
	errDollar   = errors.New("it has a $ that is neither of a name nor of a quote")
	errEnd      = errors.New("it has a semicolon")
)

// CheckCondition returns an error for a condition that would not stay within the brackets that it is put into, with a
// line's end behind it: it could name other rows and columns than those of its table. What the settings of a server
// decide, such as what a backslash is, is refused. The rest of its errors the server tells.
// https://www.postgresql.org/docs/current/sql-syntax-lexical.html, https://dev.mysql.com/doc/refman/8.4/en/language-structure.html
func CheckCondition(where string, d Dialect) error {
	depth := 0
	for s := where; s != ""; {
		n, err := 1, error(nil)
		switch c := s[0]; {
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth < 0 {
				return errBrackets
			}
		case c == ';':
			return errEnd
		case c < ' ' && c != '\t' && c != '\n' && c != '\r', c == 0x7f:
			return errByte
		case c == '\'', c == '"', c == '`' && d == MySQL:
			n, err = quoted(s)
		case strings.HasPrefix(s, "/*"):
			n, err = comment(s)
		case c == '#' && d == MySQL, strings.HasPrefix(s, "--") && (d == Postgres || len(s) == 2 || s[2] <= ' ' || s[2] == 0x7f):
			n, err = line(s)
		case c == '$':
			if n, err = 0, errDollar; d == Postgres {
				n, err = dollars(s)
			}
		case inWord(c):
			if n = word(s); c <= '9' && strings.Contains(s[:n], "$") {
				return errDollar
			}
		}
		if err != nil {
			return err
		}
		s = s[n:]
	}
	if depth != 0 {
		return errBrackets
	}
	return nil
}

// quoted is the length of what stands in quotes; one that is written twice looks like two quotes side by side.
func quoted(s string) (int, error) {
	end := strings.IndexByte(s[1:], s[0]) + 1
	switch {
	case end == 0:
		return 0, errOpen
	case s[end-1] == '\\':
		return 0, errSlash
	}
	return end + 1, nil
}

// comment is the length of one in /* */. Some databases nest them, and some run what stands behind an exclamation mark.
func comment(s string) (int, error) {
	end := strings.Index(s[2:], "*/")
	if end < 0 {
		return 0, errOpen
	}
	if in := s[2 : 2+end]; strings.Contains(in, "/*") || strings.HasPrefix(in, "!") || strings.HasPrefix(in, "M!") {
		return 0, errHidden
	}
	return end + 4, nil
}

// line is the length of a comment to the line's end. A carriage return alone is one for some.
func line(s string) (int, error) {
	end := strings.IndexByte(s, '\n')
	if end < 0 {
		end = len(s)
	}
	if at := strings.IndexByte(s[:end], '\r'); at >= 0 && at != end-1 {
		return 0, errByte
	}
	return end, nil
}

// dollars is the length of what stands between $tag$ and $tag$.
func dollars(s string) (int, error) {
	n := word(s[1:])
	if n > 0 {
		if tag := s[1 : 1+n]; tag[0] >= '0' && tag[0] <= '9' {
			return 0, errDollar
		} else if cut := strings.IndexByte(tag, '$'); cut >= 0 {
			n = cut
		}
	}
	if len(s) <= 1+n || s[1+n] != '$' {
		return 0, errDollar
	}
	tag := s[:n+2]
	end := strings.Index(s[len(tag):], tag)
	if end < 0 {
		return 0, errOpen
	}
	return end + 2*len(tag), nil
}

// word is the length of a name or number, in which a $ may stand; not at the start.
func word(s string) int {
	n := 0
	for n < len(s) && (inWord(s[n]) || s[n] == '$' && n > 0) {
		n++
	}
	return n
}

func inWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}
