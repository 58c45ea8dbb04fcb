//go:build race

package pipeline

import "bytes"

// mangle overwrites memory that goes back to the pool, so that a use after the last Release shows. In pieces: a
// megabyte written byte by byte costs the race detector 10 ms.
func mangle(p []byte) {
	for len(p) > 0 {
		p = p[copy(p, junk):]
	}
}

var junk = bytes.Repeat([]byte{0xdb}, 4096)
