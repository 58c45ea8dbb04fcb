package mysql

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/sources/mysql/internal/gtid"
)

const (
	// heartbeats is how often, within Config.Silence, an idle server says that it is alive.
	heartbeats = 6

	dumpNonBlock = 1 // flag: end at the binlog's end
	dumpThroughG = 4 // flag: by GTID set
)

// register prepares the connection for a dump, as a replica does. An id of 0 reads as mysqlbinlog
// does: beside other readers, ending none.
func (c *conn) register(ctx context.Context, v *server, id uint32, name string) error {
	sum := "NONE"
	if v.checksum != "" {
		sum = v.checksum // so that damage on the server's disk or on the way shows
	}
	settings := fmt.Sprintf("SET @master_binlog_checksum=%[1]s, @source_binlog_checksum=%[1]s, @master_heartbeat_period=%[2]d, @source_heartbeat_period=%[2]d", quote(sum), (c.silence / heartbeats).Nanoseconds())
	if v.mariadb {
		settings += ", @mariadb_slave_capability=4" // understands GTIDs, and what came before
	}
	if id != 0 {
		// The same uuid each time: the server then ends what is left of our last connection at once.
		u := sha1.Sum(fmt.Appendf(nil, "leat:%s:%d", name, id))
		u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
		text := string(gtid.SID{UUID: [16]byte(u[:16])}.AppendText(nil))
		settings += fmt.Sprintf(", @slave_uuid=%[1]s, @replica_uuid=%[1]s", quote(text))
	}
	if _, err := c.exec(ctx, settings); err != nil {
		return err
	}
	if id == 0 {
		return nil
	}
	// Registering shows us in SHOW REPLICAS and lets the server tell a clash of ids.
	host, _ := os.Hostname()
	if len(host) > 60 {
		host = host[:60]
	}
	p := append(make([]byte, 4), gomysql.COM_REGISTER_SLAVE)
	p = binary.LittleEndian.AppendUint32(p, id)
	p = append(append(p, byte(len(host))), host...)
	p = append(p, 0, 0)       // user and password of the replica: none of the server's business
	p = append(p, 0, 0)       // port
	p = append(p, 0, 0, 0, 0) // rank
	p = append(p, 0, 0, 0, 0) // source id
	c.ResetSequence()
	if err := c.WritePacket(p); err != nil {
		return transient("unreachable", "register as a replica", err)
	}
	if _, err := c.ReadOKPacket(); err != nil {
		var my *gomysql.MyError
		if errors.As(err, &my) {
			return serverError("register as a replica", my)
		}
		return transient("unreachable", "register as a replica", err)
	}
	return nil
}

// dumpGTID asks MySQL for everything outside of the set.
func (c *conn) dumpGTID(id uint32, set *gtid.Set) error {
	p := append(make([]byte, 4), gomysql.COM_BINLOG_DUMP_GTID)
	p = binary.LittleEndian.AppendUint16(p, dumpThroughG)
	p = binary.LittleEndian.AppendUint32(p, id)
	p = binary.LittleEndian.AppendUint32(p, 0) // no file name
	p = binary.LittleEndian.AppendUint64(p, 4)
	data := set.Encode(nil)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(data)))
	return c.command(append(p, data...))
}

// dumpMaria asks MariaDB for everything behind the position.
func (c *conn) dumpMaria(ctx context.Context, id uint32, at *gtid.MariaPos) error {
	if _, err := c.exec(ctx, fmt.Sprintf("SET @slave_connect_state=%s, @slave_gtid_strict_mode=1", quote(at.String()))); err != nil {
		return err
	}
	return c.dumpFile(id, "", 4, 0)
}

// dumpFile asks for a file from an offset on.
func (c *conn) dumpFile(id uint32, file string, pos uint32, flags uint16) error {
	p := append(make([]byte, 4), gomysql.COM_BINLOG_DUMP)
	p = binary.LittleEndian.AppendUint32(p, pos)
	p = binary.LittleEndian.AppendUint16(p, flags)
	p = binary.LittleEndian.AppendUint32(p, id)
	return c.command(append(p, file...))
}

func (c *conn) command(p []byte) error {
	c.ResetSequence()
	if err := c.WritePacket(p); err != nil {
		return transient("unreachable", "start the dump", err)
	}
	return nil
}

const (
	gulp = 256 << 10
	// keepGulp bounds the buffers that are kept after a large packet.
	keepGulp = 1 << 20
	// maxPacket is the length that says: more follows in the next packet.
	maxPacket = 1<<24 - 1
)

// chunk is what one read of the connection gave: whole packets, with their headers.
type chunk struct {
	buf  []byte
	read time.Time
	err  error
}

// pump reads packets until the connection ends or done is closed. Go's only way to end a blocked read is
// a deadline or Close; the stream's Close does it.
func pump(nc net.Conn, silence time.Duration, chunks chan<- chunk, free <-chan []byte, done <-chan struct{}) {
	defer close(chunks)
	var rest []byte // a packet's head, in the buffer that was just filled
	for {
		var buf []byte
		select {
		case buf = <-free:
		case <-done:
			return
		}
		need := 4
		if len(rest) >= 4 {
			need = 4 + packetLen(rest)
		}
		if need > cap(buf) {
			buf = make([]byte, 0, need+gulp)
		}
		n := copy(buf[:cap(buf)], rest)
		whole, err := 0, error(nil)
		for whole == 0 && err == nil {
			if n == cap(buf) {
				// The packet at the head is larger than the buffer.
				larger := make([]byte, 4+packetLen(buf[:n])+gulp)
				copy(larger, buf[:n])
				buf = larger
			}
			var m int
			_ = nc.SetReadDeadline(time.Now().Add(silence))
			m, err = nc.Read(buf[n:cap(buf)])
			n += m
			whole = wholePackets(buf[:n])
		}
		rest = buf[whole:n]
		if err != nil {
			rest = nil
		}
		select {
		case chunks <- chunk{buf: buf[:whole], read: time.Now(), err: err}:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

func packetLen(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// wholePackets returns how many bytes at the head of b are whole packets.
func wholePackets(b []byte) int {
	at := 0
	for at+4 <= len(b) {
		n := 4 + packetLen(b[at:])
		if at+n > len(b) {
			break
		}
		at += n
	}
	return at
}

// packets takes events out of chunks. A packet of the largest length goes on in the next one.
type packets struct {
	big  []byte // of an event in several packets, up to now
	more bool
}

// next takes the first packet from b. event is nil when it was a part of a larger one; it is valid as
// long as b, or until the next call. io.EOF: the server ended a dump that was to end.
func (p *packets) next(b []byte) (event, rest []byte, err error) {
	n := packetLen(b)
	body, rest := b[4:4+n], b[4+n:]
	if p.more || n == maxPacket {
		p.big = append(p.big, body...)
		p.more = n == maxPacket
		if p.more {
			return nil, rest, nil
		}
		body = p.big
		p.big = nil
	}
	if len(body) == 0 {
		return nil, rest, transient("protocol", readingStream, errors.New("an empty packet"))
	}
	switch {
	case body[0] == 0:
		return body[1:], rest, nil
	case body[0] == 0xff:
		return nil, rest, serverError(readingStream, errorPacket(body))
	case body[0] == 0xfe && len(body) < 9:
		return nil, rest, io.EOF
	}
	return nil, rest, transient("protocol", readingStream, fmt.Errorf("a packet that begins with %#x", body[0]))
}

// errorPacket reads ERR_Packet.
// https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_err_packet.html
func errorPacket(b []byte) *gomysql.MyError {
	e := &gomysql.MyError{Message: "unknown", State: gomysql.DEFAULT_MYSQL_STATE}
	if len(b) < 3 {
		return e
	}
	e.Code = binary.LittleEndian.Uint16(b[1:])
	b = b[3:]
	if len(b) >= 6 && b[0] == '#' {
		e.State, b = string(b[1:6]), b[6:]
	}
	e.Message = string(b)
	return e
}

// readError says what a failed read of the connection means.
func readError(err error, silence time.Duration) *pipeline.SourceError {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return transient("silent", fmt.Sprintf("the server said nothing for %v, not even a heartbeat", silence), err)
	}
	return transient("disconnected", "the connection to the server ended", err)
}
