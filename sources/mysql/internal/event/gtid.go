package event

import (
	"encoding/binary"
	"math/bits"

	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

// Transaction is what begins a transaction in MySQL's binlog.
type Transaction struct {
	SID gtid.SID
	GNO int64 // 0: anonymous
	// Committed is when this server committed, microseconds since 1970; 0 = not said.
	Committed int64
}

// TagText gives the string of a tag's bytes; the reader keeps few and saves an allocation for each event.
type TagText func([]byte) string

// ReadGTID reads a GTID or ANONYMOUS_GTID event.
// https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Gtid__event.html
func ReadGTID(body []byte) (t Transaction, err error) {
	if len(body) < 25 {
		return t, damaged("GTID event")
	}
	copy(t.SID.UUID[:], body[1:])
	t.GNO = int64(binary.LittleEndian.Uint64(body[17:]))
	// Then logical timestamps (1 + 16 bytes), then the commit time in 7 bytes, whose top bit tells that
	// the original server's time follows.
	if len(body) >= 25+17+7 && body[25] == 2 {
		c := cursor{b: body[42:]}
		t.Committed = int64(c.int(7) &^ (1 << 55))
	}
	return t, nil
}

// ReadTaggedGTID reads the event of a transaction with a tagged GTID (MySQL 8.3), which is in the
// server's newer serialization: numbered fields, integers of variable length.
// https://dev.mysql.com/doc/dev/mysql-server/latest/PageLibsMysqlSerialization.html
func ReadTaggedGTID(body []byte, tag TagText) (t Transaction, err error) {
	c := cursor{b: body}
	c.varint() // version of the serialization
	c.varint() // size
	c.varint() // the last field that must be known
	const fields = 12
	for next := uint64(0); len(c.b) > 0 && !c.bad; {
		id := c.varint()
		if id < next || id >= fields {
			break
		}
		next = id + 1
		switch id {
		case 0:
			c.varint() // flags
		case 1:
			for i := range t.SID.UUID {
				t.SID.UUID[i] = byte(c.varint())
			}
		case 2:
			t.GNO = unzigzag(c.varint())
		case 3:
			t.SID.Tag = tag(c.take(c.varint()))
		case 6:
			t.Committed = int64(c.varint())
		default:
			c.varint()
		}
	}
	if c.bad || t.GNO < 1 {
		return t, damaged("tagged GTID event")
	}
	return t, nil
}

// varint reads an integer whose first byte has as many trailing ones as bytes follow.
func (c *cursor) varint() uint64 {
	if len(c.b) == 0 {
		c.bad = true
		return 0
	}
	n := uint64(bits.TrailingZeros8(^c.b[0])) + 1
	if n == 9 {
		c.take(1)
		return c.int(8)
	}
	return c.int(n) >> n
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// Flags of MariaDB's GTID event.
const (
	MariaStandalone  = 1 << 0 // one event, no COMMIT behind it
	MariaGroupCommit = 1 << 1
	MariaDDL         = 1 << 5
	MariaPreparedXA  = 1 << 6
	MariaCompletedXA = 1 << 7
)

// ReadMariaGTID reads MariaDB's GTID event, which begins a transaction; the server id stands in the header.
// https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol/gtid_event
func ReadMariaGTID(h Header, body []byte) (g gtid.Maria, flags uint8, err error) {
	if len(body) < 13 {
		return g, 0, damaged("GTID event")
	}
	return gtid.Maria{Domain: binary.LittleEndian.Uint32(body[8:]), Server: h.ServerID, Seq: binary.LittleEndian.Uint64(body)}, body[12], nil
}

// ReadHeartbeat returns where the server's reading stands; pos is 0 when the event does not say.
func ReadHeartbeat(h Header, body []byte) (file string, pos uint64, err error) {
	if h.Type == Heartbeat {
		return string(body), uint64(h.LogPos), nil
	}
	c := cursor{b: body}
	for len(c.b) > 0 && !c.bad {
		kind := c.int(1)
		if kind == 0 {
			break
		}
		v := cursor{b: c.take(c.packed())}
		switch kind {
		case 1:
			file = string(v.b)
		case 2:
			pos = v.packed()
		}
	}
	if c.bad {
		return "", 0, damaged("heartbeat")
	}
	return file, pos, nil
}
