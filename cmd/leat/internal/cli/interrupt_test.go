package cli_test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// interruptCmd starts leat, waits for a line on stdout that contains a text, sends a signal, and wants exit
// code 0 and, when given before the arguments as THEN=text, a last line: interrupt TERM|INT TEXT ARGS...
func interruptCmd(ts *testscript.TestScript, _ bool, args []string) {
	path, err := exec.LookPath("leat")
	ts.Check(err)
	cmd := exec.Command(path, args[2:]...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = append(os.Environ(), "LEAT_ADDR="+ts.Getenv("LEAT_ADDR"))
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	sent := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !sent && strings.Contains(lines.Text(), args[1]) {
			ts.Check(cmd.Process.Signal(map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT}[args[0]]))
			sent = true
		}
	}
	if err := cmd.Wait(); err != nil || !sent {
		ts.Fatalf("leat %v: %v, signal sent: %v\n%s", args[2:], err, sent, &errs)
	}
}
