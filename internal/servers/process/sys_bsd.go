//go:build unix && !linux

package process

import (
	"os"
	"syscall"
)

// childAttr: no death signal here; the next start ends what a dead process left.
func childAttr(as *Identity, _ os.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		a.Credential = &syscall.Credential{Uid: uint32(as.Uid), Gid: uint32(as.gid)}
	}
	return a
}
