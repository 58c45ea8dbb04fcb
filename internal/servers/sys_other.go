//go:build !unix

package servers

import (
	"errors"
	"os"
	"syscall"
)

const signalQuit, signalTerm = syscall.SIGKILL, syscall.SIGKILL

func tryLock(*os.File) (bool, error) {
	return false, errors.New("throw-away servers run on Linux and macOS only: name a server of your own by its URL")
}

func ownedByUs(string) error { return nil }

func childAttr(*identity, os.Signal) *syscall.SysProcAttr { return nil }

func mayReadAll() bool { return false }
