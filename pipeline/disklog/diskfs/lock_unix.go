//go:build unix

package diskfs

import (
	"os"
	"syscall"
)

// errLocked: another process holds the lock.
var errLocked error = syscall.EWOULDBLOCK

func flock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
