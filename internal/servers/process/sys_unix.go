//go:build unix

package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// SignalQuit is PostgreSQL's immediate shutdown.
const SignalQuit, SignalTerm = syscall.SIGQUIT, syscall.SIGTERM

// tryLock takes the file's lock unless another open file has it. It goes with the file's closing.
func tryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return true, nil
}

// ownedByUs guards against a folder that another user put in our place.
func ownedByUs(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || !ok || int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a folder of ours: remove it or set TMPDIR to another folder", dir)
	}
	return nil
}
