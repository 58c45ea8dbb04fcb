package process

import (
	"os"
	"syscall"
)

// capDACReadSearch lets nobody read what root may (linux/capability.h): the cache can lie under a
// closed home.
const capDACReadSearch = 2

// childAttr: a process group of its own (Ctrl-C in a terminal must not reach the server before us),
// Ended by the kernel when the thread that started it ends.
func childAttr(as *Identity, death os.Signal) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if sig, ok := death.(syscall.Signal); ok {
		a.Pdeathsig = sig
	}
	if as != nil {
		a.Credential = &syscall.Credential{Uid: uint32(as.Uid), Gid: uint32(as.gid)}
		if mayReadAll() {
			a.AmbientCaps = []uintptr{capDACReadSearch}
		}
	}
	return a
}

// mayReadAll says whether the capability is ours to hand on; containers often lack it.
func mayReadAll() bool {
	b, err := os.ReadFile("/proc/self/status")
	return err == nil && capabilities(b)&(1<<capDACReadSearch) != 0
}
