package pgtext

import (
	"bytes"
	"errors"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

var (
	errDate     = errors.New("date is not in ISO form (is DateStyle ISO?)")
	errTime     = errors.New("time is not in ISO form")
	errDateTime = errors.New("timestamp is not in ISO form (is DateStyle ISO?)")
	errZone     = errors.New("timestamp with time zone has an unknown offset (is TimeZone UTC?)")
)

const (
	second = 1_000_000
	day    = 86_400 * second
)

// beyond says that a temporal value has no place in our calendar: infinities, years before 1 and after
// 9999. The text is the server's own, so only its shape is looked at.
func beyond(raw []byte) bool {
	if string(raw) == "infinity" || string(raw) == "-infinity" || bytes.HasSuffix(raw, []byte(" BC")) {
		return true
	}
	i := 0
	for i < len(raw) && raw[i] >= '0' && raw[i] <= '9' {
		i++
	}
	return i > 4 && i <= 7 && i < len(raw) && raw[i] == '-'
}

func asText(v *cell.Value, raw []byte, s *cell.Scratch) error { return decodeText(v, raw, s) }

func decodeDate(v *cell.Value, raw []byte, s *cell.Scratch) error {
	days, rest, ok := dateOf(raw)
	if !ok || len(rest) != 0 {
		if beyond(raw) {
			return asText(v, raw, s)
		}
		return errDate
	}
	*v = cell.Value{Kind: schemas.KindDate, N: uint64(days)}
	return nil
}

func decodeTime(v *cell.Value, raw []byte, _ *cell.Scratch) error {
	us, rest, ok := clockOf(raw)
	if !ok || len(rest) != 0 {
		return errTime
	}
	*v = cell.Value{Kind: schemas.KindTime, N: uint64(us)}
	return nil
}

func decodeDateTime(v *cell.Value, raw []byte, s *cell.Scratch) error {
	us, rest, ok := dateTimeOf(raw)
	if !ok || len(rest) != 0 {
		if beyond(raw) {
			return asText(v, raw, s)
		}
		return errDateTime
	}
	*v = cell.Value{Kind: schemas.KindDateTime, N: uint64(us)}
	return nil
}

func decodeTimestamp(v *cell.Value, raw []byte, s *cell.Scratch) error {
	us, rest, ok := dateTimeOf(raw)
	var offset int64
	if ok {
		if offset, ok = offsetOf(rest); !ok && !bytes.HasSuffix(raw, []byte(" BC")) {
			return errZone
		}
	}
	us -= offset * second
	if ok && (us < minTimestamp || us > maxTimestamp) { // only with a zone that is not UTC
		return asText(v, raw, s)
	}
	if !ok {
		if beyond(raw) {
			return asText(v, raw, s)
		}
		return errDateTime
	}
	*v = cell.Value{Kind: schemas.KindTimestamp, N: uint64(us)}
	return nil
}

var (
	minTimestamp = daysSince1970(1, 1, 1) * day
	maxTimestamp = daysSince1970(10000, 1, 1)*day - 1
)

// dateOf reads YYYY-MM-DD of the years 0001 to 9999.
func dateOf(p []byte) (days int64, rest []byte, ok bool) {
	if len(p) < 10 || p[4] != '-' || p[7] != '-' {
		return 0, p, false
	}
	c, ok1 := two(p)
	y, ok2 := two(p[2:])
	m, ok3 := two(p[5:])
	d, ok4 := two(p[8:])
	y += c * 100
	if !ok1 || !ok2 || !ok3 || !ok4 || y < 1 || m < 1 || m > 12 || d < 1 || d > daysIn(y, m) {
		return 0, p, false
	}
	return daysSince1970(y, m, d), p[10:], true
}

// clockOf reads HH:MM:SS[.ffffff], up to 24:00:00, as microseconds.
func clockOf(p []byte) (us int64, rest []byte, ok bool) {
	if len(p) < 8 || p[2] != ':' || p[5] != ':' {
		return 0, p, false
	}
	h, ok1 := two(p)
	m, ok2 := two(p[3:])
	sec, ok3 := two(p[6:])
	if !ok1 || !ok2 || !ok3 || h > 24 || m > 59 || sec > 60 {
		return 0, p, false
	}
	us = (h*3600 + m*60 + sec) * second
	p = p[8:]
	if len(p) > 0 && p[0] == '.' {
		unit, i := int64(second/10), 1
		for ; i < len(p) && p[i] >= '0' && p[i] <= '9'; i++ {
			if i > 6 {
				return 0, p, false
			}
			us += int64(p[i]-'0') * unit
			unit /= 10
		}
		if i == 1 {
			return 0, p, false
		}
		p = p[i:]
	}
	if us > day {
		return 0, p, false
	}
	return us, p, true
}

func dateTimeOf(p []byte) (us int64, rest []byte, ok bool) {
	days, rest, ok := dateOf(p)
	if !ok || len(rest) == 0 || rest[0] != ' ' {
		return 0, p, false
	}
	clock, rest, ok := clockOf(rest[1:])
	return days*day + clock, rest, ok
}

// offsetOf reads ±HH[:MM[:SS]], in seconds east of UTC.
func offsetOf(p []byte) (int64, bool) {
	if len(p) != 3 && len(p) != 6 && len(p) != 9 || p[0] != '+' && p[0] != '-' {
		return 0, false
	}
	sum, unit := int64(0), int64(3600)
	for i := 1; i < len(p); i += 3 {
		n, ok := two(p[i:])
		if !ok || i > 1 && (p[i-1] != ':' || n > 59) {
			return 0, false
		}
		sum += n * unit
		unit /= 60
	}
	if p[0] == '-' {
		sum = -sum
	}
	return sum, true
}

func two(p []byte) (int64, bool) {
	a, b := p[0]-'0', p[1]-'0'
	return int64(a)*10 + int64(b), a <= 9 && b <= 9
}

func daysIn(y, m int64) int64 {
	switch m {
	case 2:
		if y%4 == 0 && (y%100 != 0 || y%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSince1970 counts days of the proleptic Gregorian calendar, by eras of 400 years that begin in
// March so that the leap day stands last.
func daysSince1970(y, m, d int64) int64 {
	if m <= 2 {
		y, m = y-1, m+12
	}
	era := y / 400
	if y < 0 {
		era = (y - 399) / 400
	}
	yoe := y - era*400
	doy := (153*(m-3)+2)/5 + d - 1
	return era*146_097 + yoe*365 + yoe/4 - yoe/100 + doy - 719_468
}
