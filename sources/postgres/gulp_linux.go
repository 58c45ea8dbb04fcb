package postgres

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sleep is precise to some 60 µs, where the runtime's timers may round up to a millisecond.
func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // cut short by a signal: reading early does no harm
}

// quickAckOff returns a func that makes the kernel delay acknowledgements, and has it give up a connection
// whose peer acknowledges nothing.
func quickAckOff(conn net.Conn) func() {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	if _, isTCP := conn.(*net.TCPConn); !isTCP {
		return func() {}
	}
	_ = raw.Control(func(fd uintptr) { // without it a dead peer is found by keepalives, later
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60_000)
	})
	off := func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) }
	return func() { _ = raw.Control(off) }
}
