package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// identity is the user a program runs as.
type identity struct{ uid, gid int }

// nobody is the unprivileged user of every Unix; root's PostgreSQL runs as it.
var nobody = &identity{65534, 65534}

// unprivileged is who a server runs as that refuses to be root: nil (ourselves) unless we are root.
func unprivileged() *identity {
	if os.Geteuid() == 0 {
		return nobody
	}
	return nil
}

// process is a running child. A goroutine of its own waits for it on a locked thread, because Linux
// sends the death signal when the thread that forked ends, not the process.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed after err was set
	err  error
}

// startProcess runs l in f, with output appended to logFile. The pid is noted in f for the sweep.
func startProcess(f *folder, logFile string, l launch) (*process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	cmd := command(f.path, l.as, l.args)
	cmd.SysProcAttr = childAttr(l.as, l.death)
	cmd.Stdout, cmd.Stderr = out, out
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(f.path, "pid"), []byte(itoa(p.pid())), 0o644); err != nil {
		return nil, fmt.Errorf("%w (and %w)", err, p.end(context.Background(), os.Kill))
	}
	return p, nil
}

// run starts the child and waits for it.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// end sends sig and waits; SIGKILL follows when ctx ends. How the child ended is no error here.
func (p *process) end(ctx context.Context, sig os.Signal) error {
	if p.ended() {
		return nil
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		select {
		case <-p.done: // it went by itself
			return nil
		case <-ctx.Done():
			return fmt.Errorf("signal %v to process %d: %w", sig, p.pid(), err)
		}
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		if err := p.cmd.Process.Kill(); err == nil {
			<-p.done
		}
	}
	return nil
}

// command is a child in a small environment: none of PGDATA, MYSQL_HOME and their like gets through.
func command(dir string, as *identity, args []string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = childAttr(as, os.Kill)
	return cmd
}

// runTool runs a program to its end; an error carries what it said.
func runTool(ctx context.Context, dir string, as *identity, stdin *os.File, args ...string) error {
	return runToEnd(ctx, dir, command(dir, as, args), stdin)
}

func runToEnd(ctx context.Context, dir string, cmd *exec.Cmd, stdin *os.File) error {
	name := filepath.Base(cmd.Path)
	logFile := filepath.Join(dir, "tool.log")
	out, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, out, out
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go p.run(started)
	if err := <-started; err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("run %s: %w", name, context.Cause(ctx)), p.end(ctx, os.Kill))
	}
	if p.err != nil {
		said, _ := os.ReadFile(logFile)
		return fmt.Errorf("run %s: %w:\n%s", name, p.err, tail(string(said), 2000))
	}
	return os.Remove(logFile)
}

// Command is a program of the server's own package (e.g. "mariadb-binlog"), ready to run.
func (s *Server) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	if s.BinDir == "" {
		return nil, fmt.Errorf("find %s: %w", name, ErrGiven)
	}
	path := filepath.Join(s.BinDir, name)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("find a program of %s %s: %w", s.Kind, s.Version, err)
	}
	argv := append(append([]string{}, s.loader...), path)
	argv = append(argv, args...)
	return exec.CommandContext(ctx, argv[0], argv[1:]...), nil
}

// freePort asks the kernel for a port nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
