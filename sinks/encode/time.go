package encode

const (
	microsPerSecond = 1_000_000
	microsPerDay    = 86_400 * microsPerSecond
	// Days since 1970 of 0001-01-01 and of 10000-01-01.
	firstDay = -719_162
	pastDay  = 2_932_897
)

func two(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }

// appendDate appends days since 1970 as 2026-11-21; ok false outside the years 1 to 9999.
func appendDate(dst []byte, days int64) (_ []byte, ok bool) {
	if days < firstDay || days >= pastDay {
		return dst, false
	}
	// Days to civil date, by eras of 400 years beginning in March.
	// https://howardhinnant.github.io/date_algorithms.html#civil_from_days
	z := int(days) + 719_468
	era := z / 146_097
	day := z - era*146_097
	year := (day - day/1460 + day/36_524 - day/146_096) / 365
	day -= 365*year + year/4 - year/100
	m := (5*day + 2) / 153
	d := day - (153*m+2)/5 + 1
	y := year + era*400
	if m < 10 {
		m += 3
	} else {
		m -= 9
		y++
	}
	dst = two(two(dst, y/100), y%100)
	dst = two(append(dst, '-'), m)
	return two(append(dst, '-'), d), true
}

// appendClock appends microseconds as 10:15:30.5, with a sign where negative and as many hours as there are.
func appendClock(dst []byte, micros int64) []byte {
	u := uint64(micros)
	if micros < 0 {
		dst = append(dst, '-')
		u = -u
	}
	seconds, fraction := u/microsPerSecond, u%microsPerSecond
	if h := seconds / 3600; h < 100 {
		dst = two(dst, int(h))
	} else {
		dst = appendUint(dst, h)
	}
	dst = two(append(dst, ':'), int(seconds/60%60))
	dst = two(append(dst, ':'), int(seconds%60))
	if fraction == 0 {
		return dst
	}
	dst = append(dst, '.')
	for div := uint64(100_000); fraction > 0; div /= 10 {
		dst = append(dst, byte('0'+fraction/div))
		fraction %= div
	}
	return dst
}

// appendDateTime appends microseconds since 1970 as 2026-11-21T10:15:30.5.
func appendDateTime(dst []byte, micros int64) (_ []byte, ok bool) {
	days := micros / microsPerDay
	rest := micros % microsPerDay
	if rest < 0 {
		days--
		rest += microsPerDay
	}
	if dst, ok = appendDate(dst, days); !ok {
		return dst, false
	}
	return appendClock(append(dst, 'T'), rest), true
}

// appendTimestamp appends microseconds since 1970 UTC as 2026-11-21T10:15:30.5Z.
func appendTimestamp(dst []byte, micros int64) (_ []byte, ok bool) {
	if dst, ok = appendDateTime(dst, micros); !ok {
		return dst, false
	}
	return append(dst, 'Z'), true
}
