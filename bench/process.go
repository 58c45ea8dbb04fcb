package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// build makes bin/leat from the module that the working folder is in.
func build(ctx context.Context) (string, error) {
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

// server is a running `leat run`, watched from outside.
type server struct {
	cmd     *exec.Cmd
	addr    string // http://127.0.0.1:port
	started time.Time
	log     string // file with its log lines
	ended   chan error

	stopWatch chan struct{}
	watched   sync.WaitGroup
	peak      int64 // bytes of anonymous memory, the most that was seen
}

// freePort asks the system for a port that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// startLeat writes folder/leat.yaml and runs it; folder may hold the data of an earlier run.
func startLeat(ctx context.Context, bin, folder, memory, source, subscriptions, profile string) (*server, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	port, err := freePort()
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
	s := &server{addr: fmt.Sprintf("http://127.0.0.1:%d", port), log: filepath.Join(folder, "leat.log"), ended: make(chan error, 1), stopWatch: make(chan struct{})}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.CommandContext(ctx, bin, "run", "-c", file, "--log-format", "console")
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if profile != "" {
		s.cmd.Env = append(os.Environ(), "LEAT_CPUPROFILE="+profile)
	}
	s.started = time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start leat: %w", err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	s.watched.Go(s.watch)
	return s, nil
}

func (s *server) watch() {
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

// cpu is what the process has used so far, user and system.
func (s *server) cpu() time.Duration { return cpuTime(s.cmd.Process.Pid) }

// kill ends it as a crash would, without waiting for a subscriber that holds something.
func (s *server) kill() (int64, error) {
	close(s.stopWatch)
	s.watched.Wait()
	err := s.cmd.Process.Kill()
	<-s.ended // "killed"
	return s.peak, err
}

// stop ends it by SIGTERM, or by force after a while; it returns the peak of anonymous memory in bytes.
func (s *server) stop() (int64, error) {
	close(s.stopWatch)
	s.watched.Wait()
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // when it has ended by itself, Wait says how
	select {
	case err := <-s.ended:
		if err != nil {
			err = fmt.Errorf("leat: %w\n%s", err, s.said())
		}
		return s.peak, err
	case <-time.After(15 * time.Second):
		err := errors.Join(fmt.Errorf("leat did not end within 15 s of SIGTERM\n%s", s.said()), s.cmd.Process.Kill())
		<-s.ended
		return s.peak, err
	}
}

// said is the end of its log.
func (s *server) said() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return ""
	}
	return string(text[max(0, len(text)-2000):])
}

// ticks of /proc/PID/stat a second: USER_HZ, 100 on every Linux that Go runs on.
const ticks = 100

// cpuTime of a process; 0 where the system has no /proc.
func cpuTime(pid int) time.Duration {
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

// child is a process of this binary in another role. It says what it measured in lines of JSON, and ends when
// its standard input does.
type child struct {
	role  string
	cmd   *exec.Cmd
	in    io.Closer
	lines *bufio.Reader
}

func startChild(ctx context.Context, role string, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	c := &child{role: role, cmd: exec.CommandContext(ctx, self, append([]string{role}, args...)...)}
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

// next reads one line.
func (c *child) next(into any) error {
	line, err := c.lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read from the %s: %w", c.role, err)
	}
	return json.Unmarshal(line, into)
}

// stop ends it; what it says at its end goes into `into`, when that is not nil.
func (c *child) stop(into any) error {
	err := c.in.Close()
	if into != nil && err == nil {
		err = c.next(into)
	}
	return errors.Join(err, c.cmd.Wait())
}

// print is what a child says.
func print(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// untilParentEnds returns a context that ends with standard input.
func untilParentEnds() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // an error is an end too
		cancel()
	}()
	return ctx, cancel
}
