package postgres

import (
	"encoding/binary"
	"fmt"
)

const (
	bufferSize = 1 << 20
	// maxMessage is the most that the server ever sends as one message (PQ_LARGE_MESSAGE_LIMIT).
	maxMessage = 1<<30 - 1
	// keepBuffer is the most that is kept of a buffer that one huge row made grow.
	keepBuffer = 8 << 20
)

// frames cuts the bytes of a connection into messages of the frontend/backend protocol, in place.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
type frames struct {
	buf  []byte
	r, w int
}

// next returns the next whole message; body aliases the buffer until the next call of space. ok is false
// when more has to be read.
func (f *frames) next() (kind byte, body []byte, ok bool, err error) {
	have := f.buf[f.r:f.w]
	if len(have) < 5 {
		return 0, nil, false, nil
	}
	n := int(binary.BigEndian.Uint32(have[1:]))
	if n < 4 || n > maxMessage {
		return 0, nil, false, fmt.Errorf("message 0x%02x says that it is %d bytes long", have[0], n)
	}
	if len(have) < 1+n {
		return 0, nil, false, nil
	}
	f.r += 1 + n
	return have[0], have[5 : 1+n], true, nil
}

// space returns where to read to: at least a page, behind what is there already. The buffer grows with what has
// really come, never by what a message says of itself.
func (f *frames) space() []byte {
	if f.r == f.w {
		f.r, f.w = 0, 0
		if len(f.buf) > keepBuffer {
			f.buf = nil
		}
	}
	if f.buf == nil {
		f.buf = make([]byte, bufferSize)
	}
	if len(f.buf)-f.w < len(f.buf)/4 {
		if f.r >= len(f.buf)/2 || f.r > 0 && f.w-f.r < len(f.buf)/2 {
			f.w = copy(f.buf, f.buf[f.r:f.w])
			f.r = 0
		} else {
			bigger := make([]byte, 2*len(f.buf))
			f.w = copy(bigger, f.buf[f.r:f.w])
			f.buf, f.r = bigger, 0
		}
	}
	return f.buf[f.w:]
}

// filled says that n bytes were read into space.
func (f *frames) filled(n int) { f.w += n }
