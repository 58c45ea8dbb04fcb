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

// tune sets up the connection and returns what gulps wants to know of it.
func tune(conn net.Conn) link {
	s, ok := conn.(*socket)
	if !ok {
		return noLink()
	}
	// All of these are hints. Without the first a dead peer is found by keepalives, later.
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60_000)
	return link{
		quiet: func() { _ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) },
		count: func() (counted, int) {
			i, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil {
				return counted{}, 0
			}
			return counted{uint64(i.Data_segs_in), i.Bytes_received}, min(1024, int(i.Advmss)*3/4)
		},
	}
}
