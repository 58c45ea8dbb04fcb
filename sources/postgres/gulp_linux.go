package postgres

import (
	"net"
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
	s, ok := conn.(*socket)
	if !ok {
		return func() {}
	}
	// Without it a dead peer is found by keepalives, later.
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60_000)
	return func() { _ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) }
}
