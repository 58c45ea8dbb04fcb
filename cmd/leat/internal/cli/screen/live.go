package screen

import (
	"bytes"
	"os"
	"strings"

	"golang.org/x/term"
)

// Live draws frames over one another on a terminal, on its second screen (xterm's private modes 1049, 25 and 7:
// alternate screen, cursor, wrapping). Not for concurrent use.
type Live struct {
	out           *os.File
	color         bool
	width, height int
	raw           *term.State
	in            *os.File
	buf           bytes.Buffer
}

// NewLive returns nil when out is no terminal. Keys are read from in where that is one: they come unechoed then.
func (s *Screen) NewLive(in *os.File) *Live {
	out, ok := s.w.(*os.File)
	if !ok || !s.Terminal {
		return nil
	}
	return &Live{out: out, in: in, color: s.Color}
}

// Begin takes the screen; what follows must end with End.
func (l *Live) Begin() error {
	if l.in != nil && term.IsTerminal(int(l.in.Fd())) {
		if raw, err := term.MakeRaw(int(l.in.Fd())); err == nil {
			l.raw = raw
		}
	}
	_, err := l.out.WriteString("\x1b[?1049h\x1b[?25l\x1b[?7l")
	return err
}

// Keys reports whether what is typed arrives on its own, Ctrl-C as the byte 3.
func (l *Live) Keys() bool { return l.raw != nil }

// End gives the screen back as it was.
func (l *Live) End() {
	_, err := l.out.WriteString("\x1b[?7h\x1b[?25h\x1b[?1049l")
	if l.raw != nil && err == nil {
		_ = term.Restore(int(l.in.Fd()), l.raw) // its terminal may be gone
	}
}

// Draw shows a frame: what paint writes, cut to the terminal's width and height as they are now.
func (l *Live) Draw(paint func(s *Screen, height int)) error {
	width, height, err := term.GetSize(int(l.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	var frame bytes.Buffer
	paint(&Screen{w: &frame, Terminal: true, Color: l.color, Width: width}, height)
	l.buf.Reset()
	if width != l.width || height != l.height {
		l.buf.WriteString("\x1b[2J") // what was drawn for another size may lie anywhere
		l.width, l.height = width, height
	}
	lines := strings.Split(strings.TrimSuffix(frame.String(), "\n"), "\n")
	if len(lines) > height {
		lines = lines[:height]
	}
	for i, line := range lines {
		if i == 0 {
			l.buf.WriteString("\x1b[H")
		} else {
			l.buf.WriteString("\r\n")
		}
		// Erased before it is written: behind a full line the cursor stands on its last character.
		l.buf.WriteString("\x1b[K" + Clip(line, width))
	}
	if len(lines) < height {
		l.buf.WriteString("\r\n\x1b[J")
	}
	_, err = l.out.Write(l.buf.Bytes()) // in one write, so that it does not flicker
	return err
}
