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
// read, and the count of segments if there is one. All of it are hints: without the first a dead peer is found by keepalives, later.
func tune(conn net.Conn, gather bool) (quiet func(), segments func() (uint32, int)) {
	s, ok := conn.(*socket)
	if !ok {
		return func() {}, nil
	}
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60_000)
	if gather {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	quiet = func() { _ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) }
	return quiet, func() (uint32, int) {
		info, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, 0 // the read that follows fails too
		}
		return info.Data_segs_in, min(largeSegment, int(min(info.Advmss, info.Snd_mss))/2)
	}
}
