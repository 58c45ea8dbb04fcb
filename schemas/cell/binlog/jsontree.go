package binlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// jsonNode is a value of a document taken apart to be changed.
type jsonNode struct {
	kind byte
	data []byte // of scalars and opaque values, as stored outside of an entry
	keys [][]byte
	kids []*jsonNode
}

func (n *jsonNode) object() bool { return n.kind == jsonSmallObject || n.kind == jsonLargeObject }
func (n *jsonNode) array() bool  { return n.kind == jsonSmallArray || n.kind == jsonLargeArray }

// parseJSON takes a binary document apart; its nodes alias it.
func parseJSON(raw []byte) (*jsonNode, error) {
	if len(raw) == 0 {
		return &jsonNode{kind: jsonLiteral, data: []byte{0}}, nil
	}
	p := jsonReader{budget: len(raw)}
	return p.node(raw[0], raw[1:], 0)
}

func (p *jsonReader) node(kind byte, b []byte, depth int) (*jsonNode, error) {
	n := &jsonNode{kind: kind}
	head, size := 0, -1
	switch kind {
	case jsonSmallObject, jsonLargeObject, jsonSmallArray, jsonLargeArray:
		return n, p.kids(n, b, depth)
	case jsonOpaque:
		head = 1
		fallthrough
	case jsonString:
		if len(b) < head {
			return nil, errJSON
		}
		text, err := p.counted(b[head:])
		if err != nil {
			return nil, err
		}
		size = len(b) - len(b[head:]) + jsonCountBytes(b[head:]) + len(text)
	case jsonLiteral:
		size = 1
	case jsonInt16, jsonUint16:
		size = 2
	case jsonInt32, jsonUint32:
		size = 4
	case jsonInt64, jsonUint64, jsonDouble:
		size = 8
	}
	if size < 0 || size > len(b) {
		return nil, errJSON
	}
	n.data = b[:size]
	return n, nil
}

// jsonCountBytes is the size of the length that b begins with.
func jsonCountBytes(b []byte) int {
	for i, c := range b {
		if c&0x80 == 0 {
			return i + 1
		}
	}
	return len(b)
}

func (p *jsonReader) kids(n *jsonNode, b []byte, depth int) error {
	w := 2
	if n.kind == jsonLargeObject || n.kind == jsonLargeArray {
		w = 4
	}
	if depth >= maxJSONDepth || len(b) < 2*w {
		return errJSON
	}
	count, size := little(b[:w]), little(b[w:2*w])
	values := uint64(2 * w)
	if n.object() {
		values += count * uint64(w+2)
	}
	front := values + count*uint64(w+1)
	if size > uint64(len(b)) || front > size || !p.pay(int(front)) {
		return errJSON
	}
	b = b[:size]
	for i := range int(count) {
		if n.object() {
			entry := b[2*w+i*(w+2):]
			at, size := little(entry[:w]), little(entry[w:w+2])
			if at+size > uint64(len(b)) || !p.pay(int(size)) {
				return errJSON
			}
			n.keys = append(n.keys, b[at:at+size])
		}
		entry := b[int(values)+i*(w+1):]
		data := entry[1 : 1+w]
		if !jsonInline(entry[0], w) {
			at := little(data)
			if at >= uint64(len(b)) {
				return errJSON
			}
			data = b[at:]
		}
		kid, err := p.node(entry[0], data, depth+1)
		if err != nil {
			return err
		}
		n.kids = append(n.kids, kid)
	}
	return nil
}

// append appends the node's type and data as a document.
func (n *jsonNode) append(dst []byte) ([]byte, error) {
	dst = append(dst, n.kind)
	at := len(dst) - 1
	dst, err := n.appendData(dst)
	if err != nil {
		return dst, err
	}
	dst[at] = n.kind // which the size may have changed
	return dst, nil
}

// appendData appends the node's data. A container becomes small or large by its size.
func (n *jsonNode) appendData(dst []byte) ([]byte, error) {
	if !n.object() && !n.array() {
		return append(dst, n.data...), nil
	}
	from := len(dst)
	kind := n.kind &^ 1
	for _, large := range []byte{0, 1} {
		n.kind = kind | large
		var err error
		if dst, err = n.appendContainer(dst[:from], 2+2*int(large)); err != nil {
			return dst, err
		}
		if large == 1 || len(dst)-from <= math.MaxUint16 {
			break
		}
	}
	if len(dst)-from > math.MaxUint32 {
		return dst, fmt.Errorf("a JSON document of more than 4 GiB")
	}
	return dst, nil
}

func (n *jsonNode) appendContainer(dst []byte, w int) ([]byte, error) {
	from := len(dst)
	put := func(at int, v int) {
		if w == 2 {
			binary.LittleEndian.PutUint16(dst[at:], uint16(v))
		} else {
			binary.LittleEndian.PutUint32(dst[at:], uint32(v))
		}
	}
	dst = append(dst, make([]byte, 2*w+len(n.keys)*(w+2)+len(n.kids)*(w+1))...)
	put(from, len(n.kids))
	for i, key := range n.keys {
		if len(key) > math.MaxUint16 {
			return dst, errJSON
		}
		at := from + 2*w + i*(w+2)
		put(at, len(dst)-from)
		binary.LittleEndian.PutUint16(dst[at+w:], uint16(len(key)))
		dst = append(dst, key...)
	}
	for i, kid := range n.kids {
		at := from + 2*w + len(n.keys)*(w+2) + i*(w+1)
		if jsonInline(kid.kind, w) {
			dst[at] = kid.kind
			copy(dst[at+1:at+1+w], kid.data)
			// A signed value of two bytes in an entry of four keeps its own width: the rest is not read.
			continue
		}
		put(at+1, len(dst)-from)
		var err error
		if dst, err = kid.appendData(dst); err != nil {
			return dst, err
		}
		dst[at] = kid.kind
	}
	put(from+w, len(dst)-from)
	return dst, nil
}

// find returns the place of a key and whether it is there. Keys are ordered by length, then bytes.
func (n *jsonNode) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(n.keys, key, func(a, b []byte) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return bytes.Compare(a, b)
	})
}
