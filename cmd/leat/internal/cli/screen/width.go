package screen

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// wide are the blocks whose characters take two places on a terminal (Unicode Standard Annex 11: wide and
// full-width, the emoji among them).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{{0x1100, 0x115f, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0xa4cf, 1}, {0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1}, {0xfe30, 0xfe6f, 1}, {0xff00, 0xff60, 1}, {0xffe0, 0xffe6, 1}},
	R32: []unicode.Range32{{0x1f300, 0x1f64f, 1}, {0x1f900, 0x1f9ff, 1}, {0x20000, 0x3fffd, 1}},
}

// Width is how many places a text without escapes takes on a terminal.
func Width(text string) int {
	n := 0
	for _, r := range text {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me) || r == 0x200b || r == 0x200d:
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// Clip cuts a line, which may have styles of [Screen.Paint], to width places.
func Clip(line string, width int) string {
	if len(line) <= width {
		return line
	}
	n, styled, cut := 0, false, -1
	for i := 0; i < len(line); {
		if line[i] == 0x1b {
			end := strings.IndexByte(line[i:], 'm')
			if end < 0 {
				return line[:i]
			}
			styled = !strings.HasPrefix(line[i:], "\x1b[0m")
			i += end + 1
			continue
		}
		r, size := utf8.DecodeRuneInString(line[i:])
		w := runeWidth(r)
		if cut < 0 && n+w > width-1 {
			cut = i // the place of the … if more than this one character follows
		}
		if n += w; n > width {
			out := strings.TrimRight(line[:cut], " ") + "…"
			if styled {
				out += "\x1b[0m"
			}
			return out
		}
		i += size
	}
	return line
}

// Wrap breaks a text between words into lines of at most width places; a word that is longer is cut.
func Wrap(text string, width int) []string {
	width = max(width, 8)
	var out []string
	line := ""
	for _, word := range strings.Fields(text) {
		word = Clip(word, width)
		switch {
		case line == "":
			line = word
		case Width(line)+1+Width(word) <= width:
			line += " " + word
		default:
			out, line = append(out, line), word
		}
	}
	if line != "" {
		out = append(out, line)
	}
	return out
}
