// Package process runs the programs of throw-away servers: each in a folder of its own that goes with us,
// as an unprivileged user where we are root, ended when we end; and it keeps the cache of those programs.
package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

// Identity is the user a program runs as.
type Identity struct{ Uid, gid int }

// nobody is the unprivileged user of every Unix; root's PostgreSQL runs as it.
var nobody = &Identity{65534, 65534}

// Unprivileged is who a server runs as that refuses to be root: nil (ourselves) unless we are root.
func Unprivileged() *Identity {
	if os.Geteuid() == 0 {
		return nobody
	}
	return nil
}

// Launch says how to run a server's program.
type Launch struct {
	Args  []string
	As    *Identity // nil: as ourselves
	Clean os.Signal // asks for a shutdown that flushes
	Quick os.Signal // ends it at once, data no longer wanted
	Death os.Signal // sent by the kernel when we die
}

// Process is a running child. A goroutine of its own waits for it on a locked thread, because Linux
// sends the death signal when the thread that forked ends, not the process.
type Process struct {
	cmd  *exec.Cmd
	Done chan struct{} // closed after err was set
	Err  error
}

// Start runs l in f, with output appended to logFile. The pid is noted in f for the sweep.
func Start(f *Folder, logFile string, l Launch) (*Process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	cmd := Command(f.Path, l.As, l.Args)
	cmd.SysProcAttr = childAttr(l.As, l.Death)
	cmd.Stdout, cmd.Stderr = out, out
	p := &Process{cmd: cmd, Done: make(chan struct{})}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(f.Path, "pid"), []byte(strconv.Itoa(p.Pid())), 0o644); err != nil {
		return nil, fmt.Errorf("%w (and %w)", err, p.End(context.Background(), os.Kill))
	}
	return p, nil
}

// run starts the child and waits for it.
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.Err = p.cmd.Wait()
	close(p.Done)
}

// Ended reports whether the child is gone.
func (p *Process) Ended() bool {
	select {
	case <-p.Done:
		return true
	default:
		return false
	}
}

// Pid is the child's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// End sends sig and waits; SIGKILL follows when ctx ends. How the child ended is no error here.
func (p *Process) End(ctx context.Context, sig os.Signal) error {
	if p.Ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		select {
		case <-p.Done: // it went by itself
			return nil
		case <-ctx.Done():
			return fmt.Errorf("signal %v to process %d: %w", sig, p.Pid(), err)
		}
	}
	select {
	case <-p.Done:
	case <-ctx.Done():
		if err := p.cmd.Process.Kill(); err == nil {
			<-p.Done
		}
	}
	return nil
}

// Command is a child in a small environment: none of PGDATA, MYSQL_HOME and their like gets through.
func Command(dir string, as *Identity, args []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = childAttr(as, os.Kill)
	return cmd
}

// RunTool runs a program to its end; an error carries what it said.
func RunTool(ctx context.Context, dir string, as *Identity, stdin *os.File, args ...string) error {
	return RunToEnd(ctx, dir, Command(dir, as, args), stdin)
}

// RunToEnd is RunTool for a command of the caller's.
func RunToEnd(ctx context.Context, dir string, cmd *exec.Cmd, stdin *os.File) error {
	name := filepath.Base(cmd.Path)
	logFile := filepath.Join(dir, "tool.log")
	out, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, out
	p := &Process{cmd: cmd, Done: make(chan struct{})}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	select {
	case <-p.Done:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("run %s: %w", name, context.Cause(ctx)), p.End(ctx, os.Kill))
	}
	if p.Err != nil {
		said, _ := os.ReadFile(logFile)
		return fmt.Errorf("run %s: %w:\n%s", name, p.Err, Tail(string(said), 2000))
	}
	return os.Remove(logFile)
}

// FreePort asks the kernel for a port nobody listens on.
func FreePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// Tail is the last n bytes of a text.
func Tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// Pause waits d or until ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
