// Package event reads the events of MySQL's and MariaDB's binlogs, as far as changes of rows need it.
//
// Every reader takes the event's body: what follows the header, without the checksum. What it returns
// aliases the body. Damaged bodies are errors, never panics.
//
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html,
// https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol
package event

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// Type is an event's type.
type Type uint8

// The types that are read, or known and passed over.
const (
	Query             Type = 2
	Stop              Type = 3
	Rotate            Type = 4
	IntVar            Type = 5
	AppendBlock       Type = 9
	DeleteFile        Type = 11
	Rand              Type = 13
	UserVar           Type = 14
	FormatDescription Type = 15
	XID               Type = 16
	BeginLoadQuery    Type = 17
	ExecuteLoadQuery  Type = 18
	TableMap          Type = 19
	WriteRowsV1       Type = 23
	UpdateRowsV1      Type = 24
	DeleteRowsV1      Type = 25
	Incident          Type = 26
	Heartbeat         Type = 27
	Ignorable         Type = 28
	RowsQuery         Type = 29
	WriteRows         Type = 30
	UpdateRows        Type = 31
	DeleteRows        Type = 32
	GTID              Type = 33
	AnonymousGTID     Type = 34
	PreviousGTIDs     Type = 35
	TxContext         Type = 36
	ViewChange        Type = 37
	XAPrepare         Type = 38
	PartialUpdateRows Type = 39
	TxPayload         Type = 40
	HeartbeatV2       Type = 41
	TaggedGTID        Type = 42

	MariaAnnotateRows         Type = 160
	MariaCheckpoint           Type = 161
	MariaGTID                 Type = 162
	MariaGTIDList             Type = 163
	MariaStartEncryption      Type = 164
	MariaQueryCompressed      Type = 165
	MariaWriteRowsCompressed1 Type = 166
	MariaUpdateRowsCompressed Type = 167
	MariaDeleteRowsCompressed Type = 168
	MariaWriteRowsCompressed2 Type = 169
	MariaUpdateRowsCompress2  Type = 170
	MariaDeleteRowsCompress2  Type = 171
)

// Header flags.
const (
	FlagThreadSpecific uint16 = 0x0004
	FlagArtificial     uint16 = 0x0020
	FlagIgnorable      uint16 = 0x0080
)

// HeaderSize is the length of every event's header.
const HeaderSize = 19

// ErrDamaged is wrapped by every error about an event's bytes.
var ErrDamaged = errors.New("the event is cut off or damaged")

func damaged(what string) error { return fmt.Errorf("read %s: %w", what, ErrDamaged) }

// Header is an event's header.
type Header struct {
	Time     uint32 // seconds since 1970, of the statement's start
	ServerID uint32
	Size     uint32 // of the whole event, checksum included
	LogPos   uint32 // end of the event in its file, modulo 4 GiB; 0 of artificial events
	Flags    uint16
	Type     Type
}

// ReadHeader reads the header at the head of b.
func ReadHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, damaged("event header")
	}
	h := Header{Time: binary.LittleEndian.Uint32(b), Type: Type(b[4]), ServerID: binary.LittleEndian.Uint32(b[5:]),
		Size: binary.LittleEndian.Uint32(b[9:]), LogPos: binary.LittleEndian.Uint32(b[13:]), Flags: binary.LittleEndian.Uint16(b[17:])}
	if h.Size < HeaderSize {
		return Header{}, damaged("event header")
	}
	return h, nil
}

// ChecksumOK tells whether the last four bytes of the whole event are the CRC-32 of those before.
func ChecksumOK(b []byte) bool {
	n := len(b) - 4
	return n >= HeaderSize && crc32.ChecksumIEEE(b[:n]) == binary.LittleEndian.Uint32(b[n:])
}

// Format is what a format description says about the events behind it.
type Format struct {
	Version  string // of the server that wrote the file
	MariaDB  bool
	Checksum bool // events end in a CRC-32
}

// ReadFormat reads a format description. It alone is given with its checksum: the field before tells
// whether the other events have one.
func ReadFormat(body []byte) (Format, error) {
	const fixed = 2 + 50 + 4 + 1
	if len(body) < fixed {
		return Format{}, damaged("format description")
	}
	if v := binary.LittleEndian.Uint16(body); v != 4 {
		return Format{}, fmt.Errorf("read format description: binlog version %d, want 4 (MySQL 5.1 or later)", v)
	}
	if body[fixed-1] != HeaderSize {
		return Format{}, fmt.Errorf("read format description: event headers of %d bytes, want %d", body[fixed-1], HeaderSize)
	}
	version, _, _ := bytes.Cut(body[2:52], []byte{0})
	f := Format{Version: string(version)}
	f.MariaDB = strings.Contains(f.Version, "MariaDB")
	// One byte of algorithm and a checksum close it since MySQL 5.6.1 and MariaDB 5.3.
	if len(body) >= fixed+int(TxContext)+5 || f.MariaDB {
		f.Checksum = body[len(body)-5] == 1
	}
	return f, nil
}

// ReadRotate returns the file that comes next and where in it.
func ReadRotate(body []byte) (pos uint64, file string, err error) {
	if len(body) < 9 {
		return 0, "", damaged("rotate event")
	}
	return binary.LittleEndian.Uint64(body), string(body[8:]), nil
}

// ReadIncident returns the number and the message of an incident.
func ReadIncident(body []byte) (number uint16, message string, err error) {
	if len(body) < 2 {
		return 0, "", damaged("incident event")
	}
	if len(body) > 3 && len(body) >= 3+int(body[2]) {
		message = string(body[3 : 3+int(body[2])])
	}
	return binary.LittleEndian.Uint16(body), message, nil
}

// ReadXAPrepare tells whether the event commits at once (XA COMMIT … ONE PHASE) instead of preparing.
func ReadXAPrepare(body []byte) (onePhase bool, err error) {
	if len(body) < 1 {
		return false, damaged("XA prepare event")
	}
	return body[0] != 0, nil
}

// cursor takes bytes from b; bad is set, and zeros returned, once they do not suffice.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	p := c.b[:n:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) int(n uint64) uint64 {
	v := uint64(0)
	for i, x := range c.take(n) {
		v |= uint64(x) << (8 * i)
	}
	return v
}

// packed reads a length-encoded integer.
func (c *cursor) packed() uint64 {
	switch v := c.int(1); v {
	case 0xfc:
		return c.int(2)
	case 0xfd:
		return c.int(3)
	case 0xfe:
		return c.int(8)
	case 0xfb, 0xff:
		c.bad, c.b = true, nil
		return 0
	default:
		return v
	}
}
