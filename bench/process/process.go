// Package process runs what is measured, and what it is measured with, as processes of their own: `leat run`
// watched from outside, and children of the bench's own binary. CPU time and memory are each one's alone.
package process

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// Build makes bin/leat from the module that the working folder is in.
func Build(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(out)))
	bin := filepath.Join(root, "bin", "leat")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/leat")
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build bin/leat: %w", err)
	}
	return bin, nil
}

// Server is a running `leat run`, watched from outside.
type Server struct {
	cmd     *exec.Cmd
	Addr    string // http://127.0.0.1:port
	Started time.Time
	Log     string // file with its log lines
	Ended   chan error

	stopWatch chan struct{}
	watched   sync.WaitGroup
	peak      int64 // bytes of anonymous memory, the most that was seen
}

// FreePort asks the system for a port that nobody listens on.
func FreePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Start writes folder/leat.yaml and runs it; folder may hold the data of an earlier run.
func Start(ctx context.Context, bin, folder, memory, source, subscriptions, profile string) (*Server, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("data: ./data\nlisten: 127.0.0.1:%d\nmemory: %s\nsources:\n  bench:\n%s", port, memory, source)
	if subscriptions != "" {
		config += "subscriptions:\n" + subscriptions
	}
	file := filepath.Join(folder, "leat.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	s := &Server{Addr: fmt.Sprintf("http://127.0.0.1:%d", port), Log: filepath.Join(folder, "leat.log"), Ended: make(chan error, 1), stopWatch: make(chan struct{})}
	log, err := os.Create(s.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.CommandContext(ctx, bin, "run", "-c", file, "--log-format", "console")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if profile != "" {
		s.cmd.Env = append(os.Environ(), "LEAT_CPUPROFILE="+profile)
	}
	s.Started = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start leat: %w", err)
	}
	go func() { s.Ended <- s.cmd.Wait() }()
	s.watched.Go(s.watch)
	return s, nil
}

func (s *Server) watch() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.stopWatch:
			return
		case <-tick.C:
			s.peak = max(s.peak, anonymous(s.cmd.Process.Pid))
		}
	}
}

// CPU is what the process has used so far, user and system.
func (s *Server) CPU() time.Duration { return CPUTime(s.cmd.Process.Pid) }

// Anonymous is the memory that it has now, in bytes.
func (s *Server) Anonymous() int64 { return anonymous(s.cmd.Process.Pid) }

// Kill ends it as a crash would, without waiting for a subscriber that holds something.
func (s *Server) Kill() (int64, error) {
	close(s.stopWatch)
	s.watched.Wait()
	err := s.cmd.Process.Kill()
	<-s.Ended // "killed"
	return s.peak, err
}

// Stop ends it by SIGTERM, or by force after a while; it returns the peak of anonymous memory in bytes.
func (s *Server) Stop() (int64, error) {
	close(s.stopWatch)
	s.watched.Wait()
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // when it has ended by itself, Wait says how
	select {
	case err := <-s.Ended:
		if err != nil {
			err = fmt.Errorf("leat: %w\n%s", err, s.Said())
		}
		return s.peak, err
	case <-time.After(15 * time.Second):
		err := errors.Join(fmt.Errorf("leat did not end within 15 s of SIGTERM\n%s", s.Said()), s.cmd.Process.Kill())
		<-s.Ended
		return s.peak, err
	}
}

// Said is the end of its log.
func (s *Server) Said() string {
	text, err := os.ReadFile(s.Log)
	if err != nil {
		return ""
	}
	return string(text[max(0, len(text)-2000):])
}

// ticks of /proc/PID/stat a second: USER_HZ, 100 on every Linux that Go runs on.
const ticks = 100

// CPUTime of a process; 0 where the system has no /proc.
func CPUTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything; the 14th and 15th fields are utime and stime.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * (time.Second / ticks)
}

// anonymous memory of a process in bytes; 0 where the system has no /proc.
func anonymous(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(text), "RssAnon:")
	if !ok {
		return 0
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// Child is a process of this binary in another role. It says what it measured in lines of JSON, and ends when
// its standard input does.
type Child struct {
	role  string
	cmd   *exec.Cmd
	in    io.Closer
	lines *bufio.Reader
}

func StartChild(ctx context.Context, role string, args ...string) (*Child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	c := &Child{role: role, cmd: exec.CommandContext(ctx, self, append([]string{role}, args...)...)}
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.in, c.lines = in, bufio.NewReader(out)
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	return c, nil
}

// Next reads one line.
func (c *Child) Next(into any) error {
	line, err := c.lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read from the %s: %w", c.role, err)
	}
	return json.Unmarshal(line, into)
}

// Stop ends it; what it says at its end goes into `into`, when that is not nil.
func (c *Child) Stop(into any) error {
	err := c.in.Close()
	if into != nil && err == nil {
		err = c.Next(into)
	}
	return errors.Join(err, c.cmd.Wait())
}

// State of a child that has ended; nil before.
func (c *Child) State() *os.ProcessState { return c.cmd.ProcessState }

// Print is what a child says.
func Print(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// UntilParentEnds returns a context that ends with standard input.
func UntilParentEnds() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // an error is an end too
		cancel()
	}()
	return ctx, cancel
}

// asking is shared by all questions to the servers' APIs.
var asking = &http.Client{Timeout: 5 * time.Second}

// Status asks the server; nil while it does not answer.
func (s *Server) Status(ctx context.Context) *leatv1.StatusResponse {
	c := leatv1connect.NewAdminServiceClient(asking, s.Addr)
	r, err := c.Status(ctx, connect.NewRequest(&leatv1.StatusRequest{}))
	if err != nil {
		return nil
	}
	return r.Msg
}

// WaitFor asks until what it wants is so.
func (s *Server) WaitFor(ctx context.Context, what string, is func(*leatv1.StatusResponse) bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if st := s.Status(ctx); st != nil && is(st) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w\n%s", what, ctx.Err(), s.Said())
		case err := <-s.Ended:
			s.Ended <- err
			return fmt.Errorf("wait for %s: leat ended: %v\n%s", what, err, s.Said())
		case <-tick.C:
		}
	}
}

// begun is when the program started, for progress lines.
var begun = time.Now()

// Say tells progress.
func Say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
}
