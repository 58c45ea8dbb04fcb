package postgres

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a TCP connection outside of the runtime's poller. While a reader pauses, each row that arrives
// would wake the poller, 100,000 times a second, for nobody; and the server pays for waking it.
type socket struct {
	fd, wake      int // wake is an eventfd by which a waiting Read is made to look at its deadline
	local, remote net.Addr

	reading, writing sync.Mutex // held while the descriptors are used
	closed           atomic.Bool
	// Deadlines in nanoseconds since 1970, 0 for none.
	readBy, writeBy atomic.Int64
}

// direct takes a TCP connection out of the poller; others stay as they are.
func direct(conn net.Conn) (net.Conn, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	s := &socket{fd: -1, local: conn.LocalAddr(), remote: conn.RemoteAddr()}
	var dupErr error
	if err := raw.Control(func(fd uintptr) { s.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		dupErr = err
	}
	_ = tcp.Close() // the connection lives on in the duplicate
	if dupErr != nil {
		return nil, fmt.Errorf("take over the connection: %w", dupErr)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(s.fd)
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	return s, nil
}

func (s *socket) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for {
		wait, err := s.wait(&s.readBy)
		if err != nil {
			return 0, err
		}
		n, err := unix.Read(s.fd, p)
		switch {
		case n > 0:
			return n, nil
		case err == nil && len(p) > 0:
			return 0, io.EOF
		case err == nil:
			return 0, nil
		case err == unix.EINTR:
			continue
		case err != unix.EAGAIN:
			return 0, &net.OpError{Op: "read", Net: "tcp", Addr: s.remote, Err: os.NewSyscallError("read", err)}
		}
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
		if _, err := unix.Ppoll(fds, wait, nil); err != nil && err != unix.EINTR {
			return 0, &net.OpError{Op: "read", Net: "tcp", Addr: s.remote, Err: os.NewSyscallError("ppoll", err)}
		}
		if fds[1].Revents != 0 {
			var b [8]byte
			_, _ = unix.Read(s.wake, b[:])
		}
	}
}

func (s *socket) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	done := 0
	for done < len(p) {
		wait, err := s.wait(&s.writeBy)
		if err != nil {
			return done, err
		}
		n, err := unix.SendmsgN(s.fd, p[done:], nil, nil, unix.MSG_NOSIGNAL)
		if n > 0 {
			done += n
		}
		switch err {
		case nil, unix.EINTR:
			continue
		case unix.EAGAIN:
		default:
			return done, &net.OpError{Op: "write", Net: "tcp", Addr: s.remote, Err: os.NewSyscallError("sendmsg", err)}
		}
		// A deadline that is moved meanwhile is seen within a second.
		if wait == nil || wait.Nano() > int64(time.Second) {
			wait = &unix.Timespec{Sec: 1}
		}
		if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, wait, nil); err != nil && err != unix.EINTR {
			return done, &net.OpError{Op: "write", Net: "tcp", Addr: s.remote, Err: os.NewSyscallError("ppoll", err)}
		}
	}
	return done, nil
}

// wait returns how long there is until the deadline, nil for ever.
func (s *socket) wait(by *atomic.Int64) (*unix.Timespec, error) {
	if s.closed.Load() {
		return nil, net.ErrClosed
	}
	at := by.Load()
	if at == 0 {
		return nil, nil
	}
	rest := at - time.Now().UnixNano()
	if rest <= 0 {
		return nil, os.ErrDeadlineExceeded
	}
	ts := unix.NsecToTimespec(rest)
	return &ts, nil
}

// Close wakes who reads or writes and waits for them: a descriptor's number is soon another file's.
func (s *socket) Close() error {
	if s.closed.Swap(true) {
		return net.ErrClosed
	}
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR) // fails when the peer was first
	s.nudge()
	s.reading.Lock()
	defer s.reading.Unlock()
	s.writing.Lock()
	defer s.writing.Unlock()
	_ = unix.Close(s.wake)
	if err := unix.Close(s.fd); err != nil {
		return os.NewSyscallError("close", err)
	}
	return nil
}

func (s *socket) nudge() {
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full: somebody else has nudged
}

func (s *socket) LocalAddr() net.Addr  { return s.local }
func (s *socket) RemoteAddr() net.Addr { return s.remote }

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixNano(), 1)
}

func (s *socket) SetDeadline(t time.Time) error {
	return firstError(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

func (s *socket) SetReadDeadline(t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.readBy.Store(nanos(t))
	s.nudge()
	return nil
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	s.writeBy.Store(nanos(t))
	return nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
