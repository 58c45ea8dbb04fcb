package event

import (
	"bytes"
	"encoding/binary"
	"io"
)

// Statement is a statement that the server logged as text.
type Statement struct {
	Thread uint32
	Error  uint16
	// Mode is the session's sql_mode, as far as the text's meaning goes; Collation the id of
	// the client's character set, 0 = not said.
	Mode      uint64
	Collation uint16
	Schema    []byte
	Text      []byte
}

// Bits of Statement.Mode.
const (
	ModeANSIQuotes         = 1 << 2
	ModeNoBackslashEscapes = 1 << 20
)

// Begins tells whether the statement is the BEGIN of a transaction, without looking further: it is in
// front of every one of MySQL's.
func (s *Statement) Begins() bool { return len(s.Text) == 5 && string(s.Text) == "BEGIN" }

// ReadQuery reads a QUERY event.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Query__event.html
func ReadQuery(body []byte) (Statement, error) { return readQuery(body, 0) }

// ReadExecuteLoad reads an EXECUTE_LOAD_QUERY event: LOAD DATA in statement format.
func ReadExecuteLoad(body []byte) (Statement, error) { return readQuery(body, 13) }

func readQuery(body []byte, more int) (s Statement, err error) {
	if len(body) < 13+more {
		return s, damaged("query event")
	}
	s.Thread = binary.LittleEndian.Uint32(body)
	s.Error = binary.LittleEndian.Uint16(body[9:])
	db, vars := int(body[8]), int(binary.LittleEndian.Uint16(body[11:]))
	body = body[13+more:]
	if len(body) < vars+db+1 {
		return s, damaged("query event")
	}
	s.statusVars(body[:vars])
	s.Schema, s.Text = body[vars:vars+db], body[vars+db+1:]
	return s, nil
}

// statusVars reads what is wanted of them. They have no lengths: a variable whose size is not known
// here ends the reading, and those wanted stand at the head.
func (s *Statement) statusVars(b []byte) {
	for len(b) > 0 {
		size := 0
		switch b[0] {
		case 0: // flags2
			size = 4
		case 1: // sql_mode
			if size = 8; len(b) > 8 {
				s.Mode = binary.LittleEndian.Uint64(b[1:])
			}
		case 3: // auto_increment
			size = 4
		case 4: // client's character set, connection's and server's collation
			if size = 6; len(b) > 6 {
				s.Collation = binary.LittleEndian.Uint16(b[1:])
			}
		case 5, 6: // time zone, catalog: a length and text
			if len(b) < 2 {
				return
			}
			size = 1 + int(b[1])
		default:
			return
		}
		if len(b) < 1+size {
			return
		}
		b = b[1+size:]
	}
}

// Inflater undoes MariaDB's log_bin_compress. The zero value is ready; not for concurrent use.
type Inflater struct {
	src bytes.Reader
	z   io.ReadCloser
	buf []byte
}

// Inflate returns what p (an algorithm byte, a big-endian size, zlib data) holds, valid until the
// next call. limit bounds its size in bytes.
// https://mariadb.com/docs/server/server-management/server-monitoring-logs/binary-log/compressing-events-to-reduce-size-of-the-binary-log
func (f *Inflater) Inflate(p []byte, limit int) ([]byte, error) {
	if len(p) < 1 || p[0]&0x80 == 0 || p[0]>>4&7 != 0 || len(p) < 1+int(p[0]&7) {
		return nil, damaged("compressed event")
	}
	n, size := int(p[0]&7), uint64(0)
	for _, c := range p[1 : 1+n] {
		size = size<<8 | uint64(c)
	}
	const maxRatio = 1032 // of deflate: a larger claim is damage, and is not to cost memory
	if size > uint64(limit) || size > uint64(len(p))*maxRatio {
		return nil, damaged("compressed event")
	}
	f.src.Reset(p[1+n:])
	if err := f.reset(); err != nil {
		return nil, damaged("compressed event")
	}
	if uint64(cap(f.buf)) < size {
		f.buf = make([]byte, size)
	}
	f.buf = f.buf[:size]
	if _, err := io.ReadFull(f.z, f.buf); err != nil {
		return nil, damaged("compressed event")
	}
	return f.buf, nil
}
