package binlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas/cell"
)

// What a diff does.
const (
	diffReplace = 0
	diffInsert  = 1
	diffRemove  = 2
)

// partialJSON is the bit of a row's value options that announces diffs.
const partialJSON = 1

var errDiff = errors.New("the JSON diff does not fit the document that it is for")

// ErrNoBefore is returned when a row has JSON diffs and no whole document that they apply to. The cure:
// binlog_row_image=FULL, or an empty binlog_row_value_options.
var ErrNoBefore = errors.New("the row carries only the changes of a JSON value and not the value before them: set binlog_row_image=FULL or leave binlog_row_value_options empty")

// ApplyJSONDiff returns the binary document that diffs, the value of a column in a partial update, make
// of doc, the column's value before. The result is new memory.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classJson__diff.html
func ApplyJSONDiff(doc, diffs []byte) ([]byte, error) {
	root, err := parseJSON(doc)
	if err != nil {
		return nil, fmt.Errorf("apply JSON diff: %w", err)
	}
	r := reader{b: diffs}
	for len(r.b) > 0 {
		op := r.int(1)
		path := r.take(r.packed())
		var value *jsonNode
		if op != diffRemove {
			raw := r.take(r.packed())
			if r.bad || len(raw) == 0 {
				return nil, fmt.Errorf("apply JSON diff: %w", errDiff)
			}
			if value, err = parseJSON(raw); err != nil {
				return nil, fmt.Errorf("apply JSON diff: %w", err)
			}
		}
		if r.bad {
			return nil, fmt.Errorf("apply JSON diff: %w", errDiff)
		}
		if root, err = applyDiff(root, op, path, value); err != nil {
			return nil, fmt.Errorf("apply JSON diff: %w", err)
		}
	}
	return root.append(nil)
}

// applyDiff changes the value at path and returns the root.
func applyDiff(root *jsonNode, op uint64, path []byte, value *jsonNode) (*jsonNode, error) {
	legs, err := jsonPath(path)
	if err != nil {
		return nil, err
	}
	if len(legs) == 0 {
		if op != diffReplace {
			return nil, errDiff
		}
		return value, nil
	}
	at := &root
	for _, leg := range legs[:len(legs)-1] {
		if at = leg.step(at); at == nil {
			return nil, errDiff
		}
	}
	parent, last := *at, legs[len(legs)-1]
	i, ok := last.in(parent)
	switch {
	case op == diffReplace:
		if at = last.step(at); at == nil {
			return nil, errDiff
		}
		*at = value
	case op == diffRemove && ok:
		parent.kids = slices.Delete(parent.kids, i, i+1)
		if parent.object() {
			parent.keys = slices.Delete(parent.keys, i, i+1)
		}
	case op == diffInsert && last.key != nil && parent.object() && !ok:
		i, _ := parent.find(last.key)
		parent.keys = slices.Insert(parent.keys, i, last.key)
		parent.kids = slices.Insert(parent.kids, i, value)
	case op == diffInsert && last.key == nil && parent.array():
		parent.kids = slices.Insert(parent.kids, min(i, len(parent.kids)), value)
	default:
		return nil, errDiff
	}
	return root, nil
}

// jsonLeg is one step of a path: a key, or an index where key is nil.
type jsonLeg struct {
	key   []byte
	index int
	last  bool // index counts from the end
}

// in returns the step's place among n's values, and whether there is one.
func (l jsonLeg) in(n *jsonNode) (int, bool) {
	switch {
	case l.key != nil && n.object():
		return n.find(l.key)
	case l.key == nil && n.array():
		return l.of(len(n.kids)), l.index < len(n.kids)
	}
	return 0, false
}

// of returns the index in an array of n values.
func (l jsonLeg) of(n int) int {
	if l.last {
		return max(n-1-l.index, 0)
	}
	return l.index
}

// step goes on from a value to the one that the step names, nil if there is none. What is no array
// counts as an array of itself.
func (l jsonLeg) step(at **jsonNode) **jsonNode {
	n := *at
	if l.key == nil && !n.array() && l.index == 0 {
		return at
	}
	if i, ok := l.in(n); ok {
		return &n.kids[i]
	}
	return nil
}

// jsonPath reads a path as the server writes it: "$", then ".name", ".\"quoted name\"" and "[3]", "[last-3]".
func jsonPath(path []byte) ([]jsonLeg, error) {
	p, ok := bytes.CutPrefix(path, []byte("$"))
	if !ok {
		return nil, errDiff
	}
	var legs []jsonLeg
	for len(p) > 0 {
		switch {
		case p[0] == '[':
			end := bytes.IndexByte(p, ']')
			if end < 0 {
				return nil, errDiff
			}
			leg, ok := jsonIndex(string(p[1:end]))
			if !ok {
				return nil, errDiff
			}
			legs = append(legs, leg)
			p = p[end+1:]
		case p[0] == '.' && len(p) > 1 && p[1] == '"':
			end := 2
			for end < len(p) && p[end] != '"' {
				if p[end] == '\\' {
					end++
				}
				end++
			}
			var name string
			if end >= len(p) || json.Unmarshal(p[1:end+1], &name) != nil {
				return nil, errDiff
			}
			legs = append(legs, jsonLeg{key: append([]byte{}, name...)})
			p = p[end+1:]
		case p[0] == '.':
			end := 1
			for end < len(p) && p[end] != '.' && p[end] != '[' {
				end++
			}
			if end == 1 {
				return nil, errDiff
			}
			legs = append(legs, jsonLeg{key: p[1:end]})
			p = p[end:]
		default:
			return nil, errDiff
		}
	}
	return legs, nil
}

// jsonIndex reads what stands in a path's brackets: "3", "last" or "last-3".
func jsonIndex(text string) (jsonLeg, bool) {
	leg := jsonLeg{}
	if rest, ok := strings.CutPrefix(text, "last"); ok {
		leg.last = true
		if rest == "" {
			return leg, true
		}
		if text, ok = strings.CutPrefix(rest, "-"); !ok {
			return leg, false
		}
	}
	n, err := strconv.ParseUint(text, 10, 31)
	leg.index = int(n)
	return leg, err == nil
}

// AppendPartial appends the wire form of the first after image of a partial update's body, which
// begins at its value options, and returns how many bytes of body it took. JSON values sent as diffs
// are completed from before, the row's before image in wire form; present is the bitmap of the after
// image's columns. It returns [ErrNoBefore] when that is not possible. Other than RowLen it allocates.
func (l *Layout) AppendPartial(dst, before, body, present []byte) ([]byte, int, error) {
	r := reader{b: body}
	options := r.packed()
	if r.bad || options > partialJSON {
		return dst, 0, errors.New("read a partial update: its value options are not known to this version")
	}
	var diffs []byte
	if options == partialJSON {
		diffs = r.take(uint64(l.documents+7) / 8)
	}
	if r.bad {
		return dst, 0, fmt.Errorf("read a partial update: %w", errShort)
	}
	head := len(body) - len(r.b)
	n, err := l.RowLen(r.b, present)
	if err != nil {
		return dst, 0, fmt.Errorf("read a partial update: %w", err)
	}
	from := len(dst)
	dst = append(append(dst, 1), present[:l.nulls]...)
	dst = append(dst, r.b[:n]...)
	if !zero(diffs) {
		if dst, err = l.complete(dst, from, before, diffs); err != nil {
			return dst[:from], 0, fmt.Errorf("read a partial update: %w", err)
		}
	}
	return dst, head + n, nil
}

// complete replaces, in the image at dst[from:], diffs by documents.
func (l *Layout) complete(dst []byte, from int, before, diffs []byte) ([]byte, error) {
	image := slices.Clone(dst[from:])
	refs, err := l.walk(image, nil, len(l.widths))
	if err != nil {
		return dst, err
	}
	old, err := l.walk(before, nil, len(l.widths))
	if err != nil {
		return dst, err
	}
	at, nth := 0, 0 // what of image is copied; the column's place among those of type JSON
	dst = dst[:from]
	for i, ref := range refs {
		if !l.widths[i].document {
			continue
		}
		nth++
		if !bit(diffs, nth-1) || ref.Len >= cell.LenAbsent {
			continue
		}
		if old[i].Len >= cell.LenAbsent {
			return dst, ErrNoBefore
		}
		doc, err := ApplyJSONDiff(old[i].Of(before), ref.Of(image))
		if err != nil {
			return dst, err
		}
		prefix := int(l.widths[i].prefix)
		dst = append(dst, image[at:int(ref.Off)-prefix]...)
		var size [8]byte
		binary.LittleEndian.PutUint64(size[:], uint64(len(doc)))
		dst = append(append(dst, size[:prefix]...), doc...)
		at = int(ref.Off + ref.Len)
	}
	return append(dst, image[at:]...), nil
}
