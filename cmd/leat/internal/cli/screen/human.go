package screen

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Count writes a number with a comma between thousands.
func Count[N ~uint64 | ~int64 | ~int | ~uint32](n N) string {
	s := fmt.Sprint(n)
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// Size writes bytes in the units of leat.yaml.
func Size(n uint64) string {
	if n < 1024 {
		return strconv.FormatUint(n, 10) + " B"
	}
	f, units := float64(n)/1024, "KMGTPE"
	for f >= 999.5 && len(units) > 1 {
		f, units = f/1024, units[1:]
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %ciB", f, units[0])
	}
	return fmt.Sprintf("%.0f %ciB", f, units[0])
}

// Rate writes a number per second.
func Rate(perSecond float64) string {
	switch {
	case perSecond <= 0 || math.IsNaN(perSecond):
		return "0/s"
	case perSecond < 9.95:
		return fmt.Sprintf("%.1f/s", perSecond)
	}
	return Count(int64(math.Round(min(perSecond, 1e15)))) + "/s"
}

// Duration writes the two largest units: 12ms, 3.2s, 4m10s, 3h12m, 2d4h.
func Duration(d time.Duration) string {
	const day = 24 * time.Hour
	if d < 0 {
		return "-" + Duration(-max(d, -math.MaxInt64))
	}
	two := func(big, small time.Duration, b, s string) string {
		d = d.Truncate(small)
		if d%big == 0 {
			return fmt.Sprintf("%d%s", d/big, b)
		}
		return fmt.Sprintf("%d%s%d%s", d/big, b, d%big/small, s)
	}
	switch {
	case d == 0:
		return "0s"
	case d < time.Millisecond:
		return "<1ms"
	case d < time.Second:
		return fmt.Sprintf("%dms", d/time.Millisecond)
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Truncate(100*time.Millisecond).Seconds(), 'f', -1, 64) + "s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return two(time.Minute, time.Second, "m", "s")
	case d < day:
		return two(time.Hour, time.Minute, "h", "m")
	}
	return two(day, time.Hour, "d", "h")
}

// Time writes a moment, UTC, to the second; empty for the zero time.
func Time(t time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
