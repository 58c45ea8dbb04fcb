package mysql

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

// place is where a stream stands: by GTID where the server has them, else by file and offset.
//
// As a token it is text:
//
//	mysql gtid 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5
//	mariadb gtid 0-1-100,1-2-3
//	mysql file SERVER_UUID 4711 binlog.000003
//
// Behind each may stand " | xa XID=NAME …": prepared transactions whose chunks wait in the log.
type place struct {
	mariadb bool
	byGTID  bool
	set     *gtid.Set      // MySQL by GTID
	last    *gtid.MariaPos // MariaDB by GTID
	server  string         // by file: whose file
	file    string
	pos     uint64
	waiting []waitingXA // never changed in place
}

// appendToken appends the resume token.
func (p *place) appendToken(dst []byte) []byte {
	return appendXA(p.appendPlace(dst), p.waiting)
}

func (p *place) appendPlace(dst []byte) []byte {
	if p.mariadb {
		dst = append(dst, "mariadb "...)
	} else {
		dst = append(dst, "mysql "...)
	}
	switch {
	case p.byGTID && p.mariadb:
		return p.last.Append(append(dst, "gtid "...))
	case p.byGTID:
		return p.set.Append(append(dst, "gtid "...))
	}
	dst = append(append(dst, "file "...), p.server...)
	dst = strconv.AppendUint(append(dst, ' '), p.pos, 10)
	return append(append(dst, ' '), p.file...)
}

func (p *place) token() string { return string(p.appendToken(nil)) }

// parseToken reads a token.
func parseToken(token string) (*place, error) {
	bad := func(err error) error {
		return fmt.Errorf("position %.200q is not one of a MySQL source: %w", token, err)
	}
	where, waiting, err := cutXA(token)
	if err != nil {
		return nil, bad(err)
	}
	family, rest, _ := strings.Cut(where, " ")
	kind, rest, ok := strings.Cut(rest, " ")
	p := &place{mariadb: family == "mariadb", byGTID: kind == "gtid", waiting: waiting}
	if family != "mysql" && family != "mariadb" || kind != "gtid" && kind != "file" || !ok {
		return nil, bad(fmt.Errorf("want mysql|mariadb gtid|file …"))
	}
	switch {
	case p.byGTID && p.mariadb:
		p.last, err = gtid.ParseMaria(rest)
	case p.byGTID:
		p.set, err = gtid.Parse(rest)
	default:
		var pos string
		p.server, rest, _ = strings.Cut(rest, " ")
		pos, p.file, _ = strings.Cut(rest, " ")
		p.pos, err = strconv.ParseUint(pos, 10, 64)
		if err == nil && (p.file == "" || p.pos < 4) {
			err = fmt.Errorf("want SERVER OFFSET FILE")
		}
	}
	if err != nil {
		return nil, bad(err)
	}
	return p, nil
}

// filePos is file:offset, as people write it.
func filePos(dst []byte, file string, pos uint64) []byte {
	return strconv.AppendUint(append(append(dst, file...), ':'), pos, 10)
}

// start is where reading begins the first time.
type start struct {
	kind startKind
	text string // of startGTID
	file string
	pos  uint64
}

type startKind uint8

const (
	startNow startKind = iota
	startEarliest
	startGTID
	startFile
)

func parseStart(s string) (start, error) {
	switch s {
	case "", "now":
		return start{kind: startNow}, nil
	case "earliest":
		return start{kind: startEarliest}, nil
	}
	if _, err := gtid.Parse(s); err == nil {
		return start{kind: startGTID, text: s}, nil
	}
	if _, err := gtid.ParseMaria(s); err == nil {
		return start{kind: startGTID, text: s}, nil
	}
	if i := strings.LastIndexByte(s, ':'); i > 0 {
		if pos, err := strconv.ParseUint(s[i+1:], 10, 64); err == nil && pos >= 4 {
			return start{kind: startFile, file: s[:i], pos: pos}, nil
		}
	}
	return start{}, fmt.Errorf("start: %q: want now, earliest, a GTID set (uuid:1-5 or, of MariaDB, 0-1-100) or FILE:OFFSET from 4", s)
}

// follows tells whether file b comes after file a: the number behind the last dot decides, which grows
// a digit after .999999. The base name may change.
func follows(a, b string) bool {
	x, y := a[strings.LastIndexByte(a, '.')+1:], b[strings.LastIndexByte(b, '.')+1:]
	x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
	if len(x) != len(y) {
		return len(y) > len(x)
	}
	return y > x
}
