//go:build !linux

package diskfs

func (f osFile) WriteVec(pieces [][]byte, off int64) error { return writeEach(f, pieces, off) }
