package gtid

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Maria is one MariaDB GTID: domain-server-sequence.
type Maria struct {
	Domain, Server uint32
	Seq            uint64
}

// Append appends domain-server-sequence.
func (g Maria) Append(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(g.Domain), 10)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, uint64(g.Server), 10)
	dst = append(dst, '-')
	return strconv.AppendUint(dst, g.Seq, 10)
}

// String is the text of Append.
func (g Maria) String() string { return string(g.Append(nil)) }

// MariaPos is a place in a MariaDB binlog: the last GTID of each domain. The zero value is the
// beginning. Not for concurrent use.
type MariaPos struct {
	Last []Maria // sorted by domain
}

// Set makes g its domain's last transaction.
func (p *MariaPos) Set(g Maria) {
	if len(p.Last) == 1 && p.Last[0].Domain == g.Domain {
		p.Last[0] = g
		return
	}
	i, ok := slices.BinarySearchFunc(p.Last, g.Domain, func(m Maria, d uint32) int {
		switch {
		case m.Domain < d:
			return -1
		case m.Domain > d:
			return 1
		}
		return 0
	})
	if !ok {
		p.Last = slices.Insert(p.Last, i, g)
		return
	}
	p.Last[i] = g
}

// Append appends the position's text: 0-1-100,1-2-3.
func (p *MariaPos) Append(dst []byte) []byte {
	for i, g := range p.Last {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = g.Append(dst)
	}
	return dst
}

// String is the text of Append.
func (p *MariaPos) String() string { return string(p.Append(nil)) }

// ParseMaria reads a list of GTIDs. Of several of one domain (as gtid_binlog_state has them) the one
// with the highest sequence number is kept.
func ParseMaria(text string) (*MariaPos, error) {
	all, err := ParseMariaState(text)
	if err != nil {
		return nil, err
	}
	p := &MariaPos{}
	slices.SortStableFunc(all, func(a, b Maria) int {
		if a.Seq < b.Seq {
			return -1
		}
		return 1
	})
	for _, g := range all {
		p.Set(g)
	}
	return p, nil
}

// ParseMariaState reads a list of GTIDs with all its members.
func ParseMariaState(text string) ([]Maria, error) {
	var all []Maria
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		f := strings.Split(part, "-")
		if len(f) != 3 {
			return nil, fmt.Errorf("parse GTID %q: want DOMAIN-SERVER-SEQUENCE", clip(part))
		}
		d, err1 := strconv.ParseUint(f[0], 10, 32)
		s, err2 := strconv.ParseUint(f[1], 10, 32)
		n, err3 := strconv.ParseUint(f[2], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil {
			return nil, fmt.Errorf("parse GTID %q: want DOMAIN-SERVER-SEQUENCE", clip(part))
		}
		all = append(all, Maria{uint32(d), uint32(s), n})
	}
	return all, nil
}

// DecodeMariaList reads a GTID_LIST event's body: the binlog state at the head of a file, in which a
// domain's last transaction stands behind its others.
// https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol/gtid_list_event
func DecodeMariaList(b []byte) (*MariaPos, error) {
	if len(b) < 4 {
		return nil, errShort
	}
	n := int(binary.LittleEndian.Uint32(b) & (1<<28 - 1))
	b = b[4:]
	if n > len(b)/16 {
		return nil, errShort
	}
	p := &MariaPos{}
	for range n {
		p.Set(Maria{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:])})
		b = b[16:]
	}
	return p, nil
}
