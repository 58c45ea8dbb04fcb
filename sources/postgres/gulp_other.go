//go:build !linux

package postgres

import (
	"net"
	"time"
)

func sleep(d time.Duration) { time.Sleep(d) }

func direct(conn net.Conn) (net.Conn, error) { return conn, nil }

func tune(net.Conn, bool) (quiet func(), segments func() (uint32, int)) { return func() {}, nil }
