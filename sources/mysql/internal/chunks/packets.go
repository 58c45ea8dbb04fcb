package chunks

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// gulp is how much is read from the connection at a time.
	gulp = 256 << 10
	// keep bounds the buffers that are kept after a large row.
	keep = 4 << 20
	// maxPacket is the length that says: more follows in the next packet.
	maxPacket = 1<<24 - 1
)

// packets reads the server's packets from a connection, in gulps. Not for concurrent use.
type packets struct {
	nc      net.Conn
	timeout time.Duration // how long nothing may come
	buf     []byte
	at, end int
	big     []byte // of one in several packets
}

func newPackets(nc net.Conn, timeout time.Duration) *packets {
	return &packets{nc: nc, timeout: timeout, buf: make([]byte, gulp)}
}

// next returns the next packet's payload, valid until the next call.
func (p *packets) next() ([]byte, error) {
	if cap(p.big) > keep {
		p.big = nil
	}
	p.big = p.big[:0]
	for {
		body, err := p.part()
		if err != nil {
			return nil, err
		}
		if len(body) < maxPacket {
			if len(p.big) == 0 {
				return body, nil
			}
			p.big = append(p.big, body...)
			return p.big, nil
		}
		p.big = append(p.big, body...)
	}
}

func (p *packets) part() ([]byte, error) {
	if err := p.need(4); err != nil {
		return nil, err
	}
	n := int(p.buf[p.at]) | int(p.buf[p.at+1])<<8 | int(p.buf[p.at+2])<<16
	if err := p.need(4 + n); err != nil {
		return nil, err
	}
	body := p.buf[p.at+4 : p.at+4+n]
	p.at += 4 + n
	return body, nil
}

// need reads until n bytes stand in the buffer.
func (p *packets) need(n int) error {
	if p.end-p.at >= n {
		return nil
	}
	if p.at+n > len(p.buf) {
		to := p.buf
		if n > len(p.buf) || len(p.buf) > keep && n <= gulp {
			to = make([]byte, max(n, gulp))
		}
		p.end = copy(to, p.buf[p.at:p.end])
		p.buf, p.at = to, 0
	}
	for p.end-p.at < n {
		_ = p.nc.SetReadDeadline(time.Now().Add(p.timeout))
		m, err := p.nc.Read(p.buf[p.end:])
		if p.end += m; p.end-p.at >= n {
			return nil
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read from the server: %w", err)
		}
	}
	return nil
}

// left tells how much was read that no one asked for: after a whole answer it is a mistake.
func (p *packets) left() int { return p.end - p.at }
