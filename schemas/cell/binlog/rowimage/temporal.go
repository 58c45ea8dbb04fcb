package rowimage

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// The formats are told in package binlog, which reads them.

const second = 1_000_000 // of microseconds

// units has by digits of a fraction the microseconds of the last one; pairs the same for formats that keep digits in
// pairs.
var (
	units = [7]int64{1_000_000, 100_000, 10_000, 1_000, 100, 10, 1}
	pairs = [7]int64{1_000_000, 10_000, 10_000, 100, 100, 1, 1}
)

var errClock = errors.New("not a time of its type")

// clock is what a temporal value shows.
type clock struct {
	year, month, day, hour, minute, second, micro int64
	negative                                      bool
}

// moment reads a date with or without a time.
func moment(raw []byte) (c clock, err error) {
	switch len(raw) {
	case 11:
		c.micro = int64(binary.LittleEndian.Uint32(raw[7:]))
		fallthrough
	case 7:
		c.hour, c.minute, c.second = int64(raw[4]), int64(raw[5]), int64(raw[6])
		fallthrough
	case 4:
		c.year, c.month, c.day = int64(binary.LittleEndian.Uint16(raw)), int64(raw[2]), int64(raw[3])
	case 0:
	default:
		return c, errSize
	}
	if c.year > 9999 || c.month > 12 || c.day > 31 || c.hour > 23 || c.minute > 59 || c.second > 59 || c.micro >= second {
		return c, errClock
	}
	return c, nil
}

// span reads a TIME.
func span(raw []byte) (c clock, err error) {
	switch len(raw) {
	case 12:
		c.micro = int64(binary.LittleEndian.Uint32(raw[8:]))
		fallthrough
	case 8:
		c.negative = raw[0] != 0
		c.hour = int64(binary.LittleEndian.Uint32(raw[1:]))*24 + int64(raw[5])
		c.minute, c.second = int64(raw[6]), int64(raw[7])
	case 0:
	default:
		return c, errSize
	}
	if c.hour > 838 || c.minute > 59 || c.second > 59 || c.micro >= second {
		return c, errClock
	}
	return c, nil
}

// big appends the low size bytes of n, the highest first.
func big(dst []byte, n int64, size int) []byte {
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}

// little appends the low size bytes of n, the lowest first.
func little(dst []byte, n int64, size int) []byte {
	for i := range size {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}

// seconds since 1970; 0 for the zero timestamp.
func (c *clock) seconds() (int64, error) {
	if c.year == 0 && c.month == 0 && c.day == 0 {
		return 0, nil
	}
	n := time.Date(int(c.year), time.Month(c.month), int(c.day), int(c.hour), int(c.minute), int(c.second), 0, time.UTC).Unix()
	if n <= 0 || n>>32 != 0 {
		return 0, errClock
	}
	return n, nil
}

// temporal returns the types under which a result may declare a column of that type, and how its values become cells
// of size bytes.
func temporal(t *schemas.Type, real uint8, size int) ([]uint8, convert) {
	digits := int(t.Length)
	if digits > 6 {
		return nil, nil
	}
	of := func(read func([]byte) (clock, error), write func([]byte, clock) ([]byte, error)) convert {
		return func(dst, raw []byte) ([]byte, error) {
			c, err := read(raw)
			if err != nil {
				return dst, err
			}
			return write(dst, c)
		}
	}
	switch real {
	case binlog.TypeDate, binlog.TypeNewDate:
		return []uint8{binlog.TypeDate, binlog.TypeNewDate}, of(moment, func(dst []byte, c clock) ([]byte, error) {
			return little(dst, c.year<<9|c.month<<5|c.day, 3), nil
		})
	case binlog.TypeTime, binlog.TypeTime2:
		return []uint8{binlog.TypeTime, binlog.TypeTime2}, of(span, spans(real, digits, size))
	case binlog.TypeDatetime, binlog.TypeDatetime2:
		return []uint8{binlog.TypeDatetime, binlog.TypeDatetime2}, of(moment, datetimes(real, digits, size))
	}
	return []uint8{binlog.TypeTimestamp, binlog.TypeTimestamp2}, of(moment, timestamps(real, digits, size))
}

func spans(real uint8, digits, size int) func([]byte, clock) ([]byte, error) {
	signed := func(c clock, n int64) int64 {
		if c.negative {
			return -n
		}
		return n
	}
	if real == binlog.TypeTime2 {
		bits := 8 * (size - 3) // of the fraction
		return func(dst []byte, c clock) ([]byte, error) {
			n := c.hour<<12 | c.minute<<6 | c.second
			if digits > 0 {
				n = n<<bits | c.micro/pairs[digits]
			}
			return big(dst, 0x800000<<bits+signed(c, n), size), nil
		}
	}
	if digits == 0 {
		return func(dst []byte, c clock) ([]byte, error) {
			return little(dst, signed(c, c.hour*10000+c.minute*100+c.second), size), nil
		}
	}
	const most = ((838*60+59)*60 + 59) * second
	return func(dst []byte, c clock) ([]byte, error) {
		n := ((c.hour*60+c.minute)*60+c.second)*second + c.micro
		return big(dst, signed(c, n/units[digits])+(most+second)/units[digits], size), nil
	}
}

func datetimes(real uint8, digits, size int) func([]byte, clock) ([]byte, error) {
	switch {
	case real == binlog.TypeDatetime2:
		return func(dst []byte, c clock) ([]byte, error) {
			n := (c.year*13+c.month)<<22 | c.day<<17 | c.hour<<12 | c.minute<<6 | c.second
			dst = big(dst, n+0x8000000000, 5)
			if digits == 0 {
				return dst, nil
			}
			return big(dst, c.micro/pairs[digits], size-5), nil
		}
	case digits == 0:
		return func(dst []byte, c clock) ([]byte, error) {
			n := (c.year*10000+c.month*100+c.day)*1000000 + c.hour*10000 + c.minute*100 + c.second
			return little(dst, n, size), nil
		}
	}
	return func(dst []byte, c clock) ([]byte, error) {
		n := (c.year*13+c.month)*32 + c.day
		n = ((n*24+c.hour)*60+c.minute)*60 + c.second
		return big(dst, (n*second+c.micro)/units[digits], size), nil
	}
}

func timestamps(real uint8, digits, size int) func([]byte, clock) ([]byte, error) {
	return func(dst []byte, c clock) ([]byte, error) {
		n, err := c.seconds()
		switch {
		case err != nil:
			return dst, err
		case digits == 0 && real == binlog.TypeTimestamp:
			return little(dst, n, size), nil
		case digits == 0:
			return big(dst, n, size), nil
		case real == binlog.TypeTimestamp:
			return big(big(dst, n, 4), c.micro/units[digits], size-4), nil
		}
		return big(big(dst, n, 4), c.micro/pairs[digits], size-4), nil
	}
}
