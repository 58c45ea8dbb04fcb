// Package gtid keeps sets of executed transactions: MySQL's uuid sets with tags, and MariaDB's last
// sequence number of each domain.
//
// https://dev.mysql.com/doc/refman/9.7/en/replication-gtids-concepts.html,
// https://mariadb.com/docs/server/ha-and-performance/standard-replication/gtid
package gtid

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// SID is the server part of a MySQL GTID: the uuid, and the tag in lower case ("" = none).
type SID struct {
	UUID [16]byte
	Tag  string
}

// AppendText appends uuid[:tag] as the server writes it.
func (s SID) AppendText(dst []byte) []byte {
	dst = appendUUID(dst, s.UUID)
	if s.Tag != "" {
		dst = append(dst, ':')
		dst = append(dst, s.Tag...)
	}
	return dst
}

func appendUUID(dst []byte, u [16]byte) []byte {
	dst = hex.AppendEncode(dst, u[:4])
	for _, part := range [][]byte{u[4:6], u[6:8], u[8:10], u[10:16]} {
		dst = append(dst, '-')
		dst = hex.AppendEncode(dst, part)
	}
	return dst
}

// interval is [first, last], both inclusive.
type interval struct{ first, last int64 }

// member is what a set holds of one SID. Intervals are sorted, disjoint and not adjacent.
type member struct {
	sid SID
	in  []interval
}

// Set is a MySQL GTID set. The zero value is empty. Not for concurrent use.
type Set struct {
	members []member // sorted by uuid, then tag
	last    int      // the member of the last Add: transactions mostly come from one server
}

func compareSID(a, b SID) int {
	if c := bytes.Compare(a.UUID[:], b.UUID[:]); c != 0 {
		return c
	}
	return strings.Compare(a.Tag, b.Tag)
}

func (s *Set) find(sid SID) (int, bool) {
	if s.last < len(s.members) && s.members[s.last].sid == sid {
		return s.last, true
	}
	return slices.BinarySearchFunc(s.members, sid, func(m member, sid SID) int { return compareSID(m.sid, sid) })
}

// Add adds one transaction. Allocates only for a new SID or a gap.
func (s *Set) Add(sid SID, gno int64) { s.addRange(sid, gno, gno) }

func (s *Set) addRange(sid SID, first, last int64) {
	i, ok := s.find(sid)
	if !ok {
		s.members = slices.Insert(s.members, i, member{sid: sid})
	}
	s.last = i
	m := &s.members[i]
	if n := len(m.in); n > 0 && m.in[n-1].last == first-1 {
		m.in[n-1].last = last
		return
	}
	// The first interval that ends at or after first-1: it, and those up to last+1, melt into one.
	from, _ := slices.BinarySearchFunc(m.in, first-1, func(in interval, v int64) int {
		if in.last < v {
			return -1
		}
		return 1
	})
	to := from
	for to < len(m.in) && m.in[to].first-1 <= last {
		first, last = min(first, m.in[to].first), max(last, m.in[to].last)
		to++
	}
	m.in = slices.Replace(m.in, from, to, interval{first, last})
}

// Contains tells whether the transaction is in the set.
func (s *Set) Contains(sid SID, gno int64) bool {
	i, ok := s.find(sid)
	if !ok {
		return false
	}
	for _, in := range s.members[i].in {
		if gno >= in.first && gno <= in.last {
			return true
		}
	}
	return false
}

// Union adds all of o.
func (s *Set) Union(o *Set) {
	for _, m := range o.members {
		for _, in := range m.in {
			s.addRange(m.sid, in.first, in.last)
		}
	}
}

// Empty tells whether nothing is in the set.
func (s *Set) Empty() bool { return len(s.members) == 0 }

// Append appends the set's text as the server writes it: uuid:1-5:7:tag:1-3,uuid:1.
func (s *Set) Append(dst []byte) []byte {
	for i := range s.members {
		m := &s.members[i]
		if i == 0 || s.members[i-1].sid.UUID != m.sid.UUID {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendUUID(dst, m.sid.UUID)
		}
		if m.sid.Tag != "" {
			dst = append(dst, ':')
			dst = append(dst, m.sid.Tag...)
		}
		for _, in := range m.in {
			dst = append(dst, ':')
			dst = strconv.AppendInt(dst, in.first, 10)
			if in.last > in.first {
				dst = append(dst, '-')
				dst = strconv.AppendInt(dst, in.last, 10)
			}
		}
	}
	return dst
}

// String is the text of Append.
func (s *Set) String() string { return string(s.Append(nil)) }

// Parse reads a set's text; white space and line ends between the parts are allowed, as the server
// prints them.
func Parse(text string) (*Set, error) {
	s := &Set{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		fields := strings.Split(part, ":")
		u, err := ParseUUID(strings.TrimSpace(fields[0]))
		if err != nil {
			return nil, fmt.Errorf("parse GTID set %q: %w", clip(text), err)
		}
		sid, any := SID{UUID: u}, false
		for _, f := range fields[1:] {
			f = strings.TrimSpace(f)
			if f != "" && (f[0] < '0' || f[0] > '9') {
				if !validTag(f) {
					return nil, fmt.Errorf("parse GTID set %q: tag %q: want a letter or _, then letters, digits or _, 32 at most", clip(text), clip(f))
				}
				sid.Tag = strings.ToLower(f)
				continue
			}
			first, last, err := parseInterval(f)
			if err != nil {
				return nil, fmt.Errorf("parse GTID set %q: %w", clip(text), err)
			}
			s.addRange(sid, first, last)
			any = true
		}
		if !any {
			return nil, fmt.Errorf("parse GTID set %q: %q names no transactions: want uuid:first-last", clip(text), clip(part))
		}
	}
	return s, nil
}

func validTag(t string) bool {
	for i := range len(t) {
		c := t[i] | 0x20
		if !(c >= 'a' && c <= 'z' || t[i] == '_' || i > 0 && t[i] >= '0' && t[i] <= '9') {
			return false
		}
	}
	return len(t) <= 32
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

func parseInterval(f string) (first, last int64, err error) {
	a, b, two := strings.Cut(f, "-")
	if first, err = strconv.ParseInt(strings.TrimSpace(a), 10, 64); err == nil {
		last = first
		if two {
			last, err = strconv.ParseInt(strings.TrimSpace(b), 10, 64)
		}
	}
	if err != nil || first < 1 || last < first || last == 1<<63-1 {
		return 0, 0, fmt.Errorf("interval %q: want FIRST-LAST, from 1", clip(f))
	}
	return first, last, nil
}

// ParseUUID reads a uuid with or without its dashes.
func ParseUUID(text string) (u [16]byte, err error) {
	digits := strings.ReplaceAll(text, "-", "")
	if len(digits) != 32 {
		return u, fmt.Errorf("server uuid %q: want 32 hexadecimal digits", clip(text))
	}
	if _, err = hex.Decode(u[:], []byte(digits)); err != nil {
		return u, fmt.Errorf("server uuid %q: want 32 hexadecimal digits", clip(text))
	}
	return u, nil
}

var errShort = errors.New("the GTID set is cut off or damaged")

// Decode reads the binary form that PREVIOUS_GTIDS events and COM_BINLOG_DUMP_GTID carry.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1Previous__gtids__event.html
func Decode(b []byte) (*Set, error) {
	if len(b) < 8 {
		return nil, errShort
	}
	head := binary.LittleEndian.Uint64(b)
	b = b[8:]
	// Tagged sets (8.3) mark both ends of the count with format 1.
	tagged := head>>56 == 1
	if tagged {
		head = head << 8 >> 16
	}
	s := &Set{}
	for range head {
		var sid SID
		if len(b) < 16 {
			return nil, errShort
		}
		b = b[copy(sid.UUID[:], b):]
		if tagged {
			if len(b) < 1 || len(b) < 1+int(b[0]>>1) {
				return nil, errShort
			}
			n := int(b[0] >> 1)
			sid.Tag, b = string(b[1:1+n]), b[1+n:]
			if sid.Tag != "" && (!validTag(sid.Tag) || sid.Tag[0] >= '0' && sid.Tag[0] <= '9') {
				return nil, errShort
			}
		}
		if len(b) < 8 {
			return nil, errShort
		}
		n := binary.LittleEndian.Uint64(b)
		b = b[8:]
		if n > uint64(len(b)/16) {
			return nil, errShort
		}
		for range n {
			first, end := int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))
			if first < 1 || end <= first {
				return nil, errShort
			}
			s.addRange(sid, first, end-1)
			b = b[16:]
		}
	}
	return s, nil
}

// Encode appends the binary form of s; the tagged one only when a tag is there, which servers before
// 8.3 would not understand.
func (s *Set) Encode(dst []byte) []byte {
	tagged := slices.ContainsFunc(s.members, func(m member) bool { return m.sid.Tag != "" })
	head := uint64(len(s.members))
	if tagged {
		head = head<<8 | 1 | 1<<56
	}
	dst = binary.LittleEndian.AppendUint64(dst, head)
	for i := range s.members {
		m := &s.members[i]
		dst = append(dst, m.sid.UUID[:]...)
		if tagged {
			dst = append(dst, byte(len(m.sid.Tag)<<1))
			dst = append(dst, m.sid.Tag...)
		}
		dst = binary.LittleEndian.AppendUint64(dst, uint64(len(m.in)))
		for _, in := range m.in {
			dst = binary.LittleEndian.AppendUint64(dst, uint64(in.first))
			dst = binary.LittleEndian.AppendUint64(dst, uint64(in.last+1))
		}
	}
	return dst
}
