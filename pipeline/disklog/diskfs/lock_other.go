//go:build !unix

package diskfs

import (
	"errors"
	"os"
)

var errLocked = errors.New("locked")

func flock(*os.File) error {
	return errors.New("this system has no lock that ends with its process: not supported")
}
