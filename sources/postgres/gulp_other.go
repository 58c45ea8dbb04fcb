//go:build !linux

package postgres

import (
	"net"
	"time"
)

func sleep(d time.Duration) { time.Sleep(d) }

func quickAckOff(net.Conn) func() { return func() {} }
