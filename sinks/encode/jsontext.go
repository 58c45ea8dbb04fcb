package encode

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"
)

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks, in the high bits of the result, whether any of w's eight bytes must not stand in a JSON
// string as it is: control characters, quote, backslash, or any byte beyond ASCII. The lowest mark is exact.
// https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord
func special(w uint64) uint64 {
	quote := w ^ ones*'"'
	slash := w ^ ones*'\\'
	return ((w - ones*0x20) | (quote - ones) | (slash - ones) | w) & highs
}

const (
	plain byte = iota
	escape
	beyond // not ASCII
)

// class of each byte.
var class = func() (c [256]byte) {
	for i := range c {
		switch {
		case i < 0x20 || i == '"' || i == '\\':
			c[i] = escape
		case i >= utf8.RuneSelf:
			c[i] = beyond
		}
	}
	return c
}()

// appendEscaped appends s as the inside of a JSON string; ok false when s is not valid UTF-8.
func appendEscaped(dst, s []byte) (_ []byte, ok bool) {
	i := plainRun(s)
	if i == len(s) {
		return append(dst, s...), true
	}
	if !utf8.Valid(s[i:]) {
		return dst, false
	}
	return escapeSlow(dst, s, i), true
}

// plainRun returns the index of the first byte that is not plain ASCII, or len(s).
func plainRun(s []byte) int {
	i := 0
	for i+8 <= len(s) && special(binary.LittleEndian.Uint64(s[i:])) == 0 {
		i += 8
	}
	for i < len(s) && class[s[i]] == plain {
		i++
	}
	return i
}

// escapeSlow appends s, which is valid UTF-8 and plain up to i.
func escapeSlow(dst, s []byte, i int) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i < len(s) {
		c := s[i]
		if class[c] != escape {
			i++
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(dst, s[from:]...)
}

// appendText appends a name as the inside of a JSON string; what is not UTF-8 becomes U+FFFD.
func appendText(dst []byte, s string) []byte {
	dst, _ = appendEscaped(dst, []byte(strings.ToValidUTF8(s, "\uFFFD")))
	return dst
}

var (
	errJSON      = errors.New("stored JSON is not valid JSON")
	errJSONDepth = errors.New("stored JSON is nested more than 10,000 deep")
)

const maxJSONDepth = 10_000

// appendJSON checks src and appends it without the white space between its tokens; every digit and
// character of the values stays. nest is scratch: one bit per level, set for objects.
func appendJSON(dst, src []byte, nest *[]uint64) ([]byte, error) {
	if !utf8.Valid(src) {
		return dst, errUTF8
	}
	s := scanner{src: src, dst: dst, nest: (*nest)[:0]}
	err := s.document()
	*nest = s.nest
	return s.dst, err
}

// scanner copies one JSON text. https://www.rfc-editor.org/rfc/rfc8259
type scanner struct {
	src, dst []byte
	i        int
	depth    int
	nest     []uint64
}

func (s *scanner) document() error {
	for {
		s.space()
		if s.i >= len(s.src) {
			return errJSON
		}
		c := s.src[s.i]
		if c == '{' || c == '[' {
			done, err := s.open(c)
			if err != nil {
				return err
			}
			if !done {
				continue
			}
		} else if err := s.scalar(c); err != nil {
			return err
		}
		if end, err := s.after(); end || err != nil {
			return err
		}
	}
}

// open enters an array or object; done when it was empty.
func (s *scanner) open(c byte) (done bool, err error) {
	s.take()
	s.space()
	if s.i < len(s.src) && s.src[s.i] == c+2 { // ']' is '['+2, '}' is '{'+2
		s.take()
		return true, nil
	}
	if s.depth >= maxJSONDepth {
		return false, errJSONDepth
	}
	if s.depth>>6 >= len(s.nest) {
		s.nest = append(s.nest, 0)
	}
	bit := uint64(1) << (s.depth & 63)
	s.nest[s.depth>>6] &^= bit
	if c == '{' {
		s.nest[s.depth>>6] |= bit
	}
	s.depth++
	if c == '{' {
		return false, s.name()
	}
	return false, nil
}

// after goes on behind a value; end when the document is whole.
func (s *scanner) after() (end bool, err error) {
	for {
		s.space()
		if s.depth == 0 {
			if s.i != len(s.src) {
				return true, errJSON
			}
			return true, nil
		}
		if s.i >= len(s.src) {
			return true, errJSON
		}
		object := s.nest[(s.depth-1)>>6]>>((s.depth-1)&63)&1 == 1
		switch c := s.src[s.i]; {
		case c == ',':
			s.take()
			if object {
				s.space()
				return false, s.name()
			}
			return false, nil
		case c == '}' && object, c == ']' && !object:
			s.take()
			s.depth--
		default:
			return true, errJSON
		}
	}
}

func (s *scanner) name() error {
	if s.i >= len(s.src) || s.src[s.i] != '"' {
		return errJSON
	}
	if err := s.text(); err != nil {
		return err
	}
	s.space()
	if s.i >= len(s.src) || s.src[s.i] != ':' {
		return errJSON
	}
	s.take()
	return nil
}

func (s *scanner) scalar(c byte) error {
	switch c {
	case '"':
		return s.text()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

func (s *scanner) take() {
	s.dst = append(s.dst, s.src[s.i])
	s.i++
}

func (s *scanner) space() {
	for s.i < len(s.src) {
		switch s.src[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) word(w string) error {
	if len(s.src)-s.i < len(w) || string(s.src[s.i:s.i+len(w)]) != w {
		return errJSON
	}
	s.dst = append(s.dst, w...)
	s.i += len(w)
	return nil
}

func (s *scanner) text() error {
	from := s.i
	i := s.i + 1
	for {
		for i+8 <= len(s.src) && special(binary.LittleEndian.Uint64(s.src[i:])) == 0 {
			i += 8
		}
		if i >= len(s.src) {
			return errJSON
		}
		switch c := s.src[i]; {
		case c == '"':
			s.dst = append(s.dst, s.src[from:i+1]...)
			s.i = i + 1
			return nil
		case c == '\\':
			n := escapeLen(s.src[i:])
			if n == 0 {
				return errJSON
			}
			i += n
		case c < 0x20:
			return errJSON
		default:
			i++
		}
	}
}

// escapeLen returns the length of the escape that p begins with, 0 when it is none.
func escapeLen(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	switch p[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(p) < 6 {
			return 0
		}
		for _, c := range p[2:6] {
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (s *scanner) number() error {
	i := s.i
	if i < len(s.src) && s.src[i] == '-' {
		i++
	}
	n := digits(s.src, i)
	if n == 0 || n > 1 && s.src[i] == '0' {
		return errJSON
	}
	i += n
	if i < len(s.src) && s.src[i] == '.' {
		n = digits(s.src, i+1)
		if n == 0 {
			return errJSON
		}
		i += 1 + n
	}
	if i < len(s.src) && s.src[i]|0x20 == 'e' {
		i++
		if i < len(s.src) && (s.src[i] == '+' || s.src[i] == '-') {
			i++
		}
		if n = digits(s.src, i); n == 0 {
			return errJSON
		}
		i += n
	}
	s.dst = append(s.dst, s.src[s.i:i]...)
	s.i = i
	return nil
}

func digits(p []byte, i int) int {
	n := 0
	for i+n < len(p) && p[i+n] >= '0' && p[i+n] <= '9' {
		n++
	}
	return n
}
