package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
)

// pseudoTerminal opens a pty(7) of a size; what is written to it by a program is read from control.
func pseudoTerminal(t *testing.T, cols, rows int) (control, tty *os.File) {
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
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(cols), Row: uint16(rows)}); err != nil {
		t.Fatal(err)
	}
	return control, tty
}

// TestTopFitsTheTerminal runs the real command on terminals of several sizes: frames follow one another, no line
// is longer or frame higher than the terminal, q ends it, and the screen is given back.
func TestTopFitsTheTerminal(t *testing.T) {
	addr := serve(t, newBackend())
	leat, err := exec.LookPath("leat")
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range [][2]int{{200, 50}, {80, 24}, {40, 8}, {20, 3}} {
		control, tty := pseudoTerminal(t, size[0], size[1])
		cmd := exec.Command(leat, "top", "--interval", "100ms", "--addr", addr)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		p := make([]byte, 1<<16)
		for bytes.Count(got.Bytes(), []byte("\x1b[H")) < 3 {
			n, err := control.Read(p)
			if err != nil {
				t.Fatalf("%v: %v\n%q", size, err, got.String())
			}
			got.Write(p[:n])
		}
		if _, err := control.WriteString("q"); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", size, err)
		}
		for !bytes.Contains(got.Bytes(), []byte("\x1b[?1049l")) {
			n, err := control.Read(p)
			if err != nil {
				t.Fatalf("%v: %v\n%q", size, err, got.String())
			}
			got.Write(p[:n])
		}
		frames := strings.Split(got.String(), "\x1b[H")[1:]
		for _, f := range frames[:2] {
			lines := strings.Split(strings.TrimSuffix(f, "\r\n\x1b[J"), "\r\n")
			if len(lines) > size[1] {
				t.Errorf("%v: %d lines", size, len(lines))
			}
			if !strings.Contains(f, "leat v0.0.1") {
				t.Errorf("%v: %q", size, f)
			}
			for _, l := range lines {
				if n := screen.Width(plainLine(l)); n > size[0] || strings.ContainsAny(plainLine(l), "\n\r\x1b") {
					t.Errorf("%v: %d places: %q", size, n, l)
				}
			}
		}
	}
}

// plainLine is a line without erasures and styles.
func plainLine(l string) string {
	for _, s := range []screen.Style{"0", screen.Bold, screen.Dim, screen.Red, screen.Green, screen.Yellow, screen.Cyan} {
		l = strings.ReplaceAll(l, "\x1b["+string(s)+"m", "")
	}
	return strings.NewReplacer("\x1b[K", "", "\x1b[J", "").Replace(l)
}
