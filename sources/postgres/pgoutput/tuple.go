package pgoutput

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kinds of a column in TupleData.
const (
	tagNull      = 'n'
	tagUnchanged = 'u'
	tagText      = 't'
)

var errTuple = errors.New("row ends inside a column")

// columnEnd returns the index behind the column that begins at p[i].
func columnEnd(p []byte, i int) (int, error) {
	if i >= len(p) {
		return 0, errTuple
	}
	switch p[i] {
	case tagNull, tagUnchanged:
		return i + 1, nil
	case tagText:
		if len(p)-i < 5 {
			return 0, errTuple
		}
		n := int(binary.BigEndian.Uint32(p[i+1:]))
		if n > len(p)-i-5 {
			return 0, errTuple
		}
		return i + 5 + n, nil
	}
	return 0, fmt.Errorf("row has a column of kind 0x%02x, want text", p[i])
}

// measure checks the tuple of want columns that p begins with and returns its length and whether it has
// unchanged columns.
func measure(p []byte, want int) (n int, unchanged bool, err error) {
	if len(p) < 2 {
		return 0, false, errTuple
	}
	if have := int(binary.BigEndian.Uint16(p)); have != want {
		return 0, false, fmt.Errorf("row has %d columns, its table %d", have, want)
	}
	i := 2
	for range want {
		if i < len(p) && p[i] == tagText { // written out: this is the inner loop of everything
			if len(p)-i < 5 {
				return 0, false, errTuple
			}
			size := int(binary.BigEndian.Uint32(p[i+1:]))
			i += 5
			if size > len(p)-i {
				return 0, false, errTuple
			}
			i += size
			continue
		}
		if i < len(p) && p[i] == tagUnchanged {
			unchanged = true
		}
		if i, err = columnEnd(p, i); err != nil {
			return 0, false, err
		}
	}
	return i, unchanged, nil
}

// appendKey appends a key-only tuple, checked by measure. The server writes NULL for columns outside of the
// key; they are absent. A key column is never NULL: both kinds of key demand NOT NULL.
func appendKey(dst, tuple []byte) []byte {
	at := len(dst)
	dst = append(dst, tuple...)
	for i := at + 2; i < len(dst); {
		if dst[i] == tagNull {
			dst[i] = tagUnchanged
		}
		end, err := columnEnd(dst, i)
		if err != nil { // measured before
			return dst
		}
		i = end
	}
	return dst
}

// appendFilled appends tuple with its unchanged columns taken from old; both were checked by measure.
func appendFilled(dst, tuple, old []byte) []byte {
	dst = append(dst, tuple[:2]...)
	j := 2
	for i := 2; i < len(tuple); {
		end, err := columnEnd(tuple, i)
		if err != nil {
			return dst
		}
		oldEnd, err := columnEnd(old, j)
		if err != nil {
			return dst
		}
		if tuple[i] == tagUnchanged {
			dst = append(dst, old[j:oldEnd]...)
		} else {
			dst = append(dst, tuple[i:end]...)
		}
		i, j = end, oldEnd
	}
	return dst
}

// strip removes in place what keep does not name from the tuple that dst ends with, from at on.
func strip(dst []byte, at int, keep []bool) []byte {
	kept, w, i := 0, at+2, at+2
	for _, k := range keep {
		end, err := columnEnd(dst, i)
		if err != nil {
			break
		}
		if k {
			w += copy(dst[w:], dst[i:end])
			kept++
		}
		i = end
	}
	clear(dst[w:]) // not even behind the end
	binary.BigEndian.PutUint16(dst[at:], uint16(kept))
	return dst[:w]
}
