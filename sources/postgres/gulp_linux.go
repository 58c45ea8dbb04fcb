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

// nearRTT is the round-trip time in microseconds below which a server counts as near.
const nearRTT = 1000

// nearWindow bounds what a near server may have on its way to us. A far one needs more for its throughput.
const nearWindow = 64 << 10

// tune sets up the connection and returns what gulps wants to know of it.
//
// Pausing helps only as long as nothing is acknowledged during the pause: then few segments fill the
// server's congestion window and the other rows gather behind them. Linux acknowledges when more has come
// than one segment of the size that it takes for the usual one (tcpi_rcv_mss; __tcp_ack_snd_check,
// tcp_measure_rcv_mss in net/ipv4/tcp_input.c). Large segments set that size high and the good state
// holds itself; two segments of one size, rows that lie singly, set it low, and the bad state holds itself
// just as well: seen from the server (ss -ti) the round trip is then 20 µs instead of the pause. The
// way out is one pause so long that the window fills up: the server then has to gather, sends large
// segments, and the size is high again. A small window makes that pause short.
func tune(conn net.Conn) link {
	s, ok := conn.(*socket)
	if !ok {
		return noLink()
	}
	// All of these are hints. Without the first a dead peer is found by keepalives, later.
	_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 60_000)
	info := func() *unix.TCPInfo {
		i, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return &unix.TCPInfo{}
		}
		return i
	}
	near := info().Rtt < nearRTT
	if near {
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, nearWindow)
	}
	return link{
		quiet: func() { _ = unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) },
		single: func() bool {
			i := info()
			return near && i.Rcv_mss < 4096 && i.Rcv_mss < i.Advmss/4
		},
	}
}
