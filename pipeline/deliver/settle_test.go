package deliver

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// A reason is text however it is cut, and whatever came: it travels in messages that hold nothing else.
func TestClippedReasons(t *testing.T) {
	for n := range 4 {
		for _, s := range []string{strings.Repeat("x", n) + strings.Repeat("日本", 300), strings.Repeat("x", n) + "\xff", ""} {
			if c := clipReason(s); !utf8.ValidString(c) || len(c) > 410 {
				t.Errorf("%q", c)
			}
		}
	}
}
