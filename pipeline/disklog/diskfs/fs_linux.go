package diskfs

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxPieces is how many pieces one pwritev takes (IOV_MAX).
const maxPieces = 1024

// SetDirect implements Direct.
func (f osFile) SetDirect(on bool) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) {
		var flags int
		if flags, ferr = unix.FcntlInt(fd, unix.F_GETFL, 0); ferr != nil {
			return
		}
		if flags &^= unix.O_DIRECT; on {
			flags |= unix.O_DIRECT
		}
		_, ferr = unix.FcntlInt(fd, unix.F_SETFL, flags)
	})
	return errors.Join(err, ferr)
}

func (f osFile) WriteVec(pieces [][]byte, off int64) error {
	if len(pieces) == 1 {
		_, err := f.WriteAt(pieces[0], off)
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	for len(pieces) > 0 {
		some := pieces[:min(len(pieces), maxPieces)]
		want := 0
		for _, p := range some {
			want += len(p)
		}
		var n int
		var werr error
		if err := raw.Write(func(fd uintptr) bool {
			n, werr = unix.Pwritev(int(fd), some, off)
			return true
		}); err != nil {
			return err
		}
		switch {
		case werr == syscall.EINTR:
			continue
		case werr != nil:
			return werr
		case n == want:
			off, pieces = off+int64(n), pieces[len(some):]
		default: // cut short: the rest piece by piece, which also tells why
			if err := writeEach(f, rest(some, n), off+int64(n)); err != nil {
				return err
			}
			off, pieces = off+int64(want), pieces[len(some):]
		}
	}
	return nil
}

// rest is what of the pieces follows the first n bytes.
func rest(pieces [][]byte, n int) [][]byte {
	for n >= len(pieces[0]) {
		n -= len(pieces[0])
		pieces = pieces[1:]
	}
	return append([][]byte{pieces[0][n:]}, pieces[1:]...)
}

// Sync is fdatasync: a write into a segment that was written before changes no metadata that counts.
func (f osFile) Sync() error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		for {
			if serr = unix.Fdatasync(int(fd)); serr != unix.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	return serr
}
