package screen

import (
	"strconv"
	"strings"
	"time"
)

// Plural is "1 key" or "12 keys".
func Plural[N ~uint64 | ~int64 | ~int | ~uint32](n N, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return Count(n) + " " + word + "s"
}

// Pad fills a text with spaces up to n bytes.
func Pad(s string, n int) string {
	for len(s) < n {
		s += " "
	}
	return s
}

// CleanLines cleans a text of several lines.
func CleanLines(text string) string {
	out := strings.Split(text, "\n")
	for i, l := range out {
		out[i] = strings.TrimRight(Clean(l), " ")
	}
	return strings.Join(out, "\n")
}

// Number is a number without commas, as it is typed.
func Number(n uint64) string { return strconv.FormatUint(n, 10) }

// Offset is one of a log as it is typed; empty for none.
func Offset(o uint64) string {
	if o == 0 {
		return ""
	}
	return Number(o)
}

// Offsets is a stretch of a log: "5 to 8 (3)".
func Offsets(oldest, next uint64) string {
	return Number(oldest) + " to " + Number(next) + " (" + Count(Kept(oldest, next)) + ")"
}

// Kept is the number of offsets from oldest to before next.
func Kept(oldest, next uint64) uint64 {
	if next < oldest {
		return 0
	}
	return next - oldest
}

// positionWidth is what a table shows of a position: GTID sets may be long.
const positionWidth = 40

// Position is what tells one position from another, without what stays the same (the server's id).
func Position(p string) string {
	first, _, _ := strings.Cut(p, " ")
	return Shorten(first, positionWidth)
}

// TimeOf is [Time] of a moment that may not be known.
func TimeOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return Time(*t)
}
