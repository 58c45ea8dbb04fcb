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

// tune sets up the connection; gather fixes the receive buffer. It returns what is to be called after each
// read. All of it are hints: without the first a dead peer is found by keepalives, later.
func tune(conn net.Conn, gather bool) (quiet func()) {
	s, ok := conn.(*socket)
	if !ok {
		return func() {}
	}
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60_000)
	if gather {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	return func() { _ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) }
}
