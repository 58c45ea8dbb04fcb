// Package screen writes for people: tables that align, colours where they can be seen, sizes and times
// that are read at a glance. Texts that come from elsewhere pass [Clean] on their way.
package screen

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// Style of a text on a terminal.
type Style string

// Styles are the parameters of ANSI's "select graphic rendition" (ECMA-48 §8.3.117).
const (
	Plain  Style = ""
	Bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Cyan   Style = "36"
)

// Screen is a stream that people may look at. Not for concurrent use.
type Screen struct {
	w io.Writer
	// Terminal: somebody looks at it right now.
	Terminal bool
	// Color: styles are shown.
	Color bool
	// Width of the terminal in characters; 0: as wide as it takes.
	Width int
	err   error
}

// New looks at what w is. env looks up NO_COLOR (no-color.org) and TERM.
func New(w io.Writer, env func(string) (string, bool)) *Screen {
	s := &Screen{w: w}
	if f, ok := w.(*os.File); ok {
		s.Terminal = term.IsTerminal(int(f.Fd()))
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			s.Width = w
		}
	}
	no, _ := env("NO_COLOR")
	kind, _ := env("TERM")
	s.Color = s.Terminal && no == "" && kind != "dumb"
	return s
}

// Printf writes; the first error is kept for [Screen.Err], later writes do nothing.
func (s *Screen) Printf(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.w, format, args...)
	}
}

// Write lets other encoders write to the screen.
func (s *Screen) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// Err is the first error of a write.
func (s *Screen) Err() error { return s.err }

// Paint gives text a style where styles are shown.
func (s *Screen) Paint(style Style, text string) string {
	if !s.Color || style == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

// Clean makes a text of somebody else harmless: no control characters (a table's name could otherwise
// move the cursor), no invalid UTF-8, no characters that turn the direction of writing; one line.
func Clean(text string) string {
	bad := func(r rune) bool {
		return r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	}
	if strings.IndexFunc(text, bad) < 0 {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		case r == utf8.RuneError:
			_, n := utf8.DecodeRuneInString(text[i:])
			if n == 1 {
				fmt.Fprintf(&b, `\x%02x`, text[i])
			} else {
				b.WriteRune(r)
			}
		case bad(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Shorten cuts a text to n places, with … for what is missing.
func Shorten(text string, n int) string {
	if Width(text) <= n {
		return text
	}
	return Clip(text, max(n, 1))
}
