//go:build !unix

package process

import (
	"errors"
	"os"
	"syscall"
)

const SignalQuit, SignalTerm = syscall.SIGKILL, syscall.SIGKILL

func tryLock(*os.File) (bool, error) {
	return false, errors.New("throw-away servers run on Linux and macOS only: name a server of your own by its URL")
}

func ownedByUs(string) error { return nil }

func childAttr(*Identity, os.Signal) *syscall.SysProcAttr { return nil }
