package screen

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal (pty(7)) and returns the end that programs write to.
func terminal(t *testing.T) *os.File {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	if err := unix.IoctlSetPointerInt(int(control.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(control.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return tty
}

func TestColourOnlyWhereItIsSeen(t *testing.T) {
	tty := terminal(t)
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	env := func(vars map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
	}
	for name, c := range map[string]struct {
		to              *os.File
		vars            map[string]string
		terminal, color bool
	}{
		"terminal":       {tty, map[string]string{"TERM": "xterm"}, true, true},
		"no color":       {tty, map[string]string{"NO_COLOR": "1", "TERM": "xterm"}, true, false},
		"empty no color": {tty, map[string]string{"NO_COLOR": "", "TERM": "xterm"}, true, true},
		"dumb":           {tty, map[string]string{"TERM": "dumb"}, true, false},
		"file":           {file, map[string]string{"TERM": "xterm"}, false, false},
	} {
		if s := New(c.to, env(c.vars)); s.Terminal != c.terminal || s.Color != c.color {
			t.Errorf("%s: terminal %v, colour %v", name, s.Terminal, s.Color)
		}
	}
}
