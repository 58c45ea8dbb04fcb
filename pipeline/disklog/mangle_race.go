//go:build race

package disklog

// mangle overwrites memory that goes back to a pool, so that tests under -race see who still reads it.
func mangle(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}
