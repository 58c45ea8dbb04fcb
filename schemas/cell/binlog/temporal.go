package binlog

import (
	"errors"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// The formats: https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html
// and https://dev.mysql.com/doc/internals/en/date-and-time-data-type-representation.html; MariaDB's own
// ones with a fraction (mysql56_temporal_format=OFF) are big-endian counts in units of the last digit.

const (
	second = 1_000_000 // of microseconds
	day    = 86_400 * second
)

var errClock = errors.New("the bytes are not a time: an hour, minute, second or fraction is out of range")

// units has by digits of a fraction the microseconds of the last one; pairs the same for formats that
// keep digits in pairs.
var (
	units = [7]int64{1_000_000, 100_000, 10_000, 1_000, 100, 10, 1}
	pairs = [7]int64{1_000_000, 10_000, 10_000, 100, 100, 1, 1}
)

// The sizes of MariaDB's old formats by digits of the fraction.
var (
	timeHiresBytes     = [7]uint32{3, 4, 4, 5, 5, 5, 6}
	datetimeHiresBytes = [7]uint32{8, 6, 6, 7, 7, 7, 8}
)

func fractionBytes(digits int) uint32 { return uint32(digits+1) / 2 }

// hires returns the digits of a column in one of the old formats.
func hires(t *schemas.Type) int { return int(min(t.Length, 6)) }

// clock is what a temporal value shows.
type clock struct {
	year, month, day, hour, minute, second, micro int64
}

// value sets v to a date, datetime or timestamp shown as c, or to its text when no calendar has it.
func (c *clock) value(v *cell.Value, s *cell.Scratch, kind schemas.Kind, digits int) error {
	if c.hour > 23 || c.minute > 59 || c.second > 59 || c.micro >= second || c.year > 9999 || c.month > 12 || c.day > 31 {
		return errClock
	}
	if c.year == 0 || c.month == 0 || c.day == 0 || c.day > monthDays(c.year, c.month) {
		from := len(s.Buf)
		s.Buf = c.append(s.Buf, kind == schemas.KindDate, digits)
		*v = cell.Value{Kind: schemas.KindText, B: s.Buf[from:len(s.Buf):len(s.Buf)]}
		return nil
	}
	days := daysSince1970(c.year, c.month, c.day)
	if kind == schemas.KindDate {
		*v = cell.Value{Kind: kind, N: uint64(days)}
		return nil
	}
	*v = cell.Value{Kind: kind, N: uint64(days*day + c.micros())}
	return nil
}

func (c *clock) micros() int64 { return ((c.hour*60+c.minute)*60+c.second)*second + c.micro }

// append writes the text that the servers show.
func (c *clock) append(dst []byte, date bool, digits int) []byte {
	dst = appendDigits(dst, c.year, 4)
	dst = appendDigits(append(dst, '-'), c.month, 2)
	dst = appendDigits(append(dst, '-'), c.day, 2)
	if date {
		return dst
	}
	return c.appendTime(append(dst, ' '), digits)
}

func (c *clock) appendTime(dst []byte, digits int) []byte {
	width := 2
	if c.hour > 99 {
		width = 3
	}
	dst = appendDigits(dst, c.hour, width)
	dst = appendDigits(append(dst, ':'), c.minute, 2)
	dst = appendDigits(append(dst, ':'), c.second, 2)
	if digits > 0 {
		dst = appendDigits(append(dst, '.'), c.micro/units[digits], digits)
	}
	return dst
}

// appendDigits appends the last width digits of n ≥ 0.
func appendDigits(dst []byte, n int64, width int) []byte {
	var b [20]byte
	for i := width - 1; i >= 0; i-- {
		b[i] = '0' + byte(n%10)
		n /= 10
	}
	return append(dst, b[:width]...)
}

func monthDays(year, month int64) int64 {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSince1970 counts in years that begin in March, so that the leap day comes last.
func daysSince1970(year, month, day int64) int64 {
	if month <= 2 {
		year, month = year-1, month+12
	}
	return year*365 + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - 719468
}

func decodeDate(v *cell.Value, raw []byte, s *cell.Scratch) error {
	if len(raw) != 3 {
		return errSize
	}
	n := int64(little(raw))
	c := clock{year: n >> 9, month: n >> 5 & 15, day: n & 31}
	return c.value(v, s, schemas.KindDate, 0)
}

// fraction reads a fraction kept in pairs of digits.
func fraction(raw []byte, digits int) int64 { return int64(big(raw)) * pairs[digits] }

// unpack reads the packed 40 bits of year×13+month, day, hour, minute, second.
func unpack(n int64) clock {
	month := n >> 22
	return clock{
		year: month / 13, month: month % 13, day: n >> 17 & 31,
		hour: n >> 12 & 31, minute: n >> 6 & 63, second: n & 63,
	}
}

func datetime2Decoder(digits int) cell.Decode {
	size := 5 + int(fractionBytes(digits))
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) != size {
			return errSize
		}
		n := int64(big(raw[:5])) - 0x8000000000
		if n < 0 {
			return errClock
		}
		c := unpack(n)
		if digits > 0 {
			c.micro = fraction(raw[5:], digits)
		}
		return c.value(v, s, schemas.KindDateTime, digits)
	}
}

func timestamp2Decoder(digits int) cell.Decode {
	size := 4 + int(fractionBytes(digits))
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) != size {
			return errSize
		}
		micro := int64(0)
		if digits > 0 {
			micro = fraction(raw[4:], digits)
		}
		return instant(v, s, int64(big(raw[:4])), micro, digits)
	}
}

// instant sets a timestamp; second 0 is the zero timestamp, which shows as 0000-00-00.
func instant(v *cell.Value, s *cell.Scratch, sec, micro int64, digits int) error {
	if micro >= second {
		return errClock
	}
	if sec == 0 {
		c := clock{micro: micro}
		return c.value(v, s, schemas.KindTimestamp, digits)
	}
	*v = cell.Value{Kind: schemas.KindTimestamp, N: uint64(sec*second + micro)}
	return nil
}

// span sets a TIME from its parts.
func span(v *cell.Value, c clock, negative bool) error {
	if c.hour > 838 || c.minute > 59 || c.second > 59 || c.micro >= second {
		return errClock
	}
	n := c.micros()
	if negative {
		n = -n
	}
	*v = cell.Value{Kind: schemas.KindTime, N: uint64(n)}
	return nil
}

// time2Decoder reads TIME: one big-endian number of hour, minute, second and fraction with a high bit
// added, so that bytes sort as times do.
func time2Decoder(digits int) cell.Decode {
	frac := int(fractionBytes(digits))
	return func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
		if len(raw) != 3+frac {
			return errSize
		}
		n := int64(big(raw)) - 0x800000<<(8*frac)
		negative := n < 0
		if negative {
			n = -n
		}
		hms := n >> (8 * frac)
		c := clock{hour: hms >> 12 & 1023, minute: hms >> 6 & 63, second: hms & 63}
		if digits > 0 {
			c.micro = (n & (1<<(8*frac) - 1)) * pairs[digits]
		}
		return span(v, c, negative)
	}
}

func oldTimeDecoder(digits int) cell.Decode {
	if digits == 0 { // hhmmss in decimal
		return func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
			if len(raw) != 3 {
				return errSize
			}
			n := int64(little(raw)<<40) >> 40
			negative := n < 0
			if negative {
				n = -n
			}
			return span(v, clock{hour: n / 10000, minute: n / 100 % 100, second: n % 100}, negative)
		}
	}
	size, unit := int(timeHiresBytes[digits]), units[digits]
	const most = ((838*60+59)*60 + 59) * second
	return func(v *cell.Value, raw []byte, _ *cell.Scratch) error {
		if len(raw) != size {
			return errSize
		}
		n := int64(big(raw)) - (most+second)/unit
		if n > (most+second)/unit {
			return errClock
		}
		*v = cell.Value{Kind: schemas.KindTime, N: uint64(n * unit)}
		return nil
	}
}

func oldDatetimeDecoder(digits int) cell.Decode {
	if digits == 0 { // YYYYMMDDhhmmss in decimal
		return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
			if len(raw) != 8 {
				return errSize
			}
			n := little(raw)
			if n > 9999_99_99_99_99_99 {
				return errClock
			}
			d, t := int64(n/1000000), int64(n%1000000)
			c := clock{year: d / 10000, month: d / 100 % 100, day: d % 100, hour: t / 10000, minute: t / 100 % 100, second: t % 100}
			return c.value(v, s, schemas.KindDateTime, 0)
		}
	}
	size, unit := int(datetimeHiresBytes[digits]), units[digits]
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) != size {
			return errSize
		}
		n := int64(big(raw))
		if n < 0 || n > (1<<62)/unit {
			return errClock
		}
		n *= unit
		c := clock{micro: n % second}
		n /= second
		c.second, n = n%60, n/60
		c.minute, n = n%60, n/60
		c.hour, n = n%24, n/24
		c.day, n = n%32, n/32
		c.month, c.year = n%13, n/13
		return c.value(v, s, schemas.KindDateTime, digits)
	}
}

func oldTimestampDecoder(digits int) cell.Decode {
	size := 4 + int(fractionBytes(digits))
	return func(v *cell.Value, raw []byte, s *cell.Scratch) error {
		if len(raw) != size {
			return errSize
		}
		if digits == 0 { // the only little-endian one
			return instant(v, s, int64(little(raw)), 0, 0)
		}
		return instant(v, s, int64(big(raw[:4])), int64(big(raw[4:]))*units[digits], digits)
	}
}
