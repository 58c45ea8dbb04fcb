package chunks

import (
	"encoding/binary"
	"errors"

	gomysql "github.com/go-mysql-org/go-mysql/mysql"
)

// Prepared statements: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase_ps.html

var errAnswer = errors.New("the server's answer is not one of the protocol")

// answer reads a packet; the server's error is its own.
func (p *packets) answer() ([]byte, error) {
	b, err := p.next()
	switch {
	case err != nil:
		return nil, err
	case len(b) == 0:
		return nil, errAnswer
	case b[0] == 0xff:
		return nil, errorPacket(b)
	}
	return b, nil
}

// errorPacket reads ERR_Packet.
func errorPacket(b []byte) error {
	if len(b) < 3 {
		return errAnswer
	}
	e := &gomysql.MyError{Code: binary.LittleEndian.Uint16(b[1:]), State: gomysql.DEFAULT_MYSQL_STATE}
	b = b[3:]
	if len(b) >= 6 && b[0] == '#' {
		e.State, b = string(b[1:6]), b[6:]
	}
	e.Message = string(b)
	return e
}

// over tells the packet behind the last row. Rows begin with 0.
func over(b []byte) bool { return b[0] == 0xfe }

// prepared reads the answer to COM_STMT_PREPARE: the statement's number, and that it has columns and no parameters.
func (p *packets) prepared() (id uint32, err error) {
	b, err := p.answer()
	if err != nil {
		return 0, err
	}
	if b[0] != 0 || len(b) < 9 {
		return 0, errAnswer
	}
	id = binary.LittleEndian.Uint32(b[1:])
	columns, parameters := int(binary.LittleEndian.Uint16(b[5:])), int(binary.LittleEndian.Uint16(b[7:]))
	for _, n := range []int{parameters, columns} {
		for range n {
			if _, err = p.answer(); err != nil {
				return id, err
			}
		}
		if err = p.passEnd(n); err != nil {
			return id, err
		}
	}
	if parameters > 0 {
		return id, &gomysql.MyError{Code: erParse, State: "42000", Message: "a ? stands in it, which has no value"}
	}
	return id, nil
}

// erParse is the server's number of a statement that it cannot read.
const erParse = 1064

// passEnd reads the end of n definitions; our connections are without CLIENT_DEPRECATE_EOF, so there is one.
func (p *packets) passEnd(n int) error {
	if n == 0 {
		return nil
	}
	b, err := p.answer()
	if err == nil && !over(b) {
		err = errAnswer
	}
	return err
}

// columns reads the head of a result: the types of its columns.
func (p *packets) columns() (codes []uint8, err error) {
	b, err := p.answer()
	if err != nil {
		return nil, err
	}
	n, rest, ok := lenenc(b)
	if !ok || len(rest) > 1 || n == 0 || n > 4096 {
		return nil, errAnswer
	}
	codes = make([]uint8, n)
	for i := range codes {
		if b, err = p.answer(); err != nil {
			return nil, err
		}
		for range 6 { // catalog, database, table twice, name twice
			n, rest, ok := lenenc(b)
			if !ok || n > uint64(len(rest)) {
				return nil, errAnswer
			}
			b = rest[n:]
		}
		if len(b) < 8 {
			return nil, errAnswer
		}
		codes[i] = b[1+2+4]
	}
	return codes, p.passEnd(int(n))
}

func lenenc(b []byte) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	size := map[byte]int{0xfc: 2, 0xfd: 3, 0xfe: 8}[b[0]]
	switch {
	case b[0] < 0xfb:
		return uint64(b[0]), b[1:], true
	case size == 0 || len(b) < 1+size:
		return 0, nil, false
	}
	var v [8]byte
	copy(v[:], b[1:1+size])
	return binary.LittleEndian.Uint64(v[:]), b[1+size:], true
}
