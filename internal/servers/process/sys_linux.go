package process

import (
	"os"
	"syscall"
)

// childAttr: a process group of its own (Ctrl-C in a terminal must not reach the server before us),
// Ended by the kernel when the thread that started it ends.
func childAttr(as *Identity, death os.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if sig, ok := death.(syscall.Signal); ok {
		a.Pdeathsig = sig
	}
	if as != nil {
		a.Credential = &syscall.Credential{Uid: uint32(as.Uid), Gid: uint32(as.gid)}
	}
	return a
}
