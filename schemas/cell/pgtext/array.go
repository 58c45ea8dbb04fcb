package pgtext

import (
	"bytes"
	"errors"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

var (
	errArray = errors.New("array text has an unknown form")
	errDepth = errors.New("array has more than 6 dimensions")
)

// maxDepth is the server's MAXDIM.
const maxDepth = 6

// decodeArray reads array_out's text: {1,NULL,"a \"b\""}, nested for more dimensions. An array whose lower
// bounds are not 1 comes as [2:3]={…} and stays text.
// https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
func decodeArray(elem *schemas.Type) cell.Decode {
	a := arrays{delim: delimiter(elem), elem: decoder(elem)}
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) > 0 && raw[0] == '[' {
			if !bytes.Contains(raw, []byte("]={")) {
				return errArray
			}
			return asText(v, raw, s)
		}
		bufs, elems := len(s.Buf), len(s.Elems)
		rest, err := a.level(v, raw, s, 1)
		if err == nil && len(rest) != 0 {
			err = errArray
		}
		if err != nil {
			s.Buf, s.Elems = s.Buf[:bufs], s.Elems[:elems]
		}
		return err
	}
}

type arrays struct {
	delim byte
	elem  cell.Decode
}

// level reads one {…} from p and returns what stands behind it.
func (a *arrays) level(v *cell.Value, p []byte, s *cell.Scratch, depth int) ([]byte, error) {
	if depth > maxDepth {
		return p, errDepth
	}
	n, err := a.count(p)
	if err != nil {
		return p, err
	}
	// The elements of one level stand side by side; deeper ones behind them. Should Elems move while it
	// grows, our slice goes on to be the one that v shows.
	from := len(s.Elems)
	for range n {
		s.Elems = append(s.Elems, cell.Value{})
	}
	elems := s.Elems[from : from+n : from+n]
	p = p[1:]
	for i := range elems {
		if i > 0 {
			p = p[1:] // the delimiter, seen by count
		}
		if p[0] == '{' {
			p, err = a.level(&elems[i], p, s, depth+1)
		} else {
			p, err = a.item(&elems[i], p, s)
		}
		if err != nil {
			return p, err
		}
	}
	*v = cell.Value{Kind: schemas.KindArray, Elems: elems}
	return p[1:], nil
}

// count returns the number of elements of the {…} that p begins with, having checked that its braces,
// quotes and delimiters are whole.
func (a *arrays) count(p []byte) (int, error) {
	if len(p) < 2 || p[0] != '{' {
		return 0, errArray
	}
	if p[1] == '}' {
		return 0, nil
	}
	n, depth, start := 1, 1, true // start: an element has to come
	for i := 1; i < len(p); i++ {
		switch c := p[i]; {
		case c == '"':
			end := quoteEnd(p, i)
			if !start || end < 0 {
				return 0, errArray
			}
			i, start = end, false
			if i+1 >= len(p) || p[i+1] != a.delim && p[i+1] != '}' {
				return 0, errArray
			}
		case c == '{':
			if !start {
				return 0, errArray
			}
			depth++
		case c == '}':
			if start {
				return 0, errArray
			}
			if depth--; depth == 0 {
				return n, nil
			}
			if i+1 >= len(p) || p[i+1] != a.delim && p[i+1] != '}' {
				return 0, errArray
			}
		case c == a.delim:
			if start {
				return 0, errArray
			}
			if start = true; depth == 1 {
				n++
			}
		case c == '\\':
			return 0, errArray // the server quotes elements that hold one
		default:
			start = false
		}
	}
	return 0, errArray
}

// quoteEnd returns the index of the quote that ends the one at i, -1 when there is none.
func quoteEnd(p []byte, i int) int {
	for i++; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// item reads one element that is no array.
func (a *arrays) item(v *cell.Value, p []byte, s *cell.Scratch) ([]byte, error) {
	if p[0] == '"' {
		end := quoteEnd(p, 0)
		return p[end+1:], a.elem(v, unquote(p[1:end], s), s)
	}
	end := 0
	for p[end] != a.delim && p[end] != '}' { // count saw the brace
		end++
	}
	if string(p[:end]) == "NULL" {
		*v = cell.Value{State: cell.Null}
		return p[end:], nil
	}
	return p[end:], a.elem(v, p[:end], s)
}

// unquote removes backslashes; the result aliases p when there are none.
func unquote(p []byte, s *cell.Scratch) []byte {
	i := bytes.IndexByte(p, '\\')
	if i < 0 {
		return p
	}
	from := len(s.Buf)
	for ; i >= 0 && i+1 < len(p); i = bytes.IndexByte(p, '\\') {
		s.Buf = append(s.Buf, p[:i]...)
		s.Buf = append(s.Buf, p[i+1])
		p = p[i+2:]
	}
	s.Buf = append(s.Buf, p...)
	return s.Buf[from:len(s.Buf):len(s.Buf)]
}
