package demo

import (
	"bytes"
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
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// Variables of Leat's process: that it is a demo's, and what leat.yaml does not show.
const (
	envChild  = "LEAT_DEMO_CHILD"
	envSecret = "LEAT_DEMO_SECRET"
	envURL    = "LEAT_DEMO_URL"
)

// Attached returns a context that also ends when the demo that started this process does, whatever ends it;
// any other process's is ctx itself.
func Attached(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if os.Getenv(envChild) != "" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // an error is an end too
			cancel()
		}()
	}
	return ctx, cancel
}

// leat is a `leat run` in a process of its own, so that what it uses can be told from what the demo uses.
type leat struct {
	addr   string
	file   string
	log    string
	cmd    *exec.Cmd
	stdin  io.Closer
	ended  chan struct{} // closed when it has ended, with err set
	err    error
	client leatv1connect.AdminServiceClient
	http   *http.Client
}

// address is Leat's usual one when it is free, so that `leat status` finds it without --addr.
func address() (string, error) {
	for _, addr := range []string{"127.0.0.1:7070", "127.0.0.1:0"} {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			addr = l.Addr().String()
			return addr, l.Close()
		}
		if strings.HasSuffix(addr, ":0") {
			return "", fmt.Errorf("open a port on loopback: %w", err)
		}
	}
	return "", nil
}

// config is the demo's leat.yaml.
func config(addr string, p *place, search, slow string, rate int) string {
	url := p.url
	if p.secret {
		url = "${" + envURL + "}"
	}
	// Requests are not always full: it can do about one and a half times the rate, so that it falls behind
	// when it is ill, and gets well again.
	snapshot := "mode: initial"
	if strings.Contains(p.source(), "mysql:") {
		snapshot += ", signal: " + space + ".watermark" // which goes with the rest
	}
	batch := max(2, rate*5/2/(slowInFlight*int(time.Second/slowDelay)))
	return fmt.Sprintf(`data: ./data
listen: %s
memory: 256MiB
log:
  retention: {size: 4GiB}
sources:
  files:
%s    tables: ["%s.*"]
    keys: {"%[4]s.files": [namespace_id], "%[4]s.folders": [namespace_id]}
    key_space: {"%[4]s.files": tree, "%[4]s.folders": tree}
    snapshot: {%[11]s}
subscriptions:
  search:      # a webhook, signed
    source: files
    deliver: {webhook: {url: "%[5]s", secret: "${%[6]s}"}}
  features:    # a client that pulls
    source: files
    deliver: {pull: {lease: 30s}}
  slow:        # a webhook that takes %[7]v for a request, and is ill for a while
    source: files
    batch: {events: %[8]d}
    flow: {max_in_flight: %[9]d}
    deliver: {webhook: {url: "%[10]s", secret: "${%[6]s}"}}
`, addr, fmt.Sprintf(p.source(), url), space, space, search, envSecret, slowDelay, batch, slowInFlight, slow, snapshot)
}

func startLeat(dir, addr, text, url, secret string) (*leat, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	l := &leat{addr: addr, file: filepath.Join(dir, "leat.yaml"), log: filepath.Join(dir, "leat.log"), ended: make(chan struct{})}
	if err := os.WriteFile(l.file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(l.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	l.cmd = exec.Command(self, "run", "-c", l.file, "--log-format", "json")
	l.cmd.Env = append(os.Environ(), envChild+"=1", envSecret+"="+secret, envURL+"="+url)
	l.cmd.Stdout, l.cmd.Stderr = log, log
	ownGroup(l.cmd) // Ctrl-C is ours to handle
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start leat run: %w", err)
	}
	go func() {
		l.err = l.cmd.Wait()
		close(l.ended)
	}()
	l.http = &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}
	l.client = leatv1connect.NewAdminServiceClient(l.http, "http://"+addr)
	return l, nil
}

// stop asks it to end, and insists after a while.
func (l *leat) stop() error {
	l.http.CloseIdleConnections()
	select {
	case <-l.ended: // before it was asked: ready and watch report that
		return nil
	default:
	}
	err := l.stdin.Close()
	select {
	case <-l.ended:
	case <-time.After(20 * time.Second):
		err = errors.Join(err, errors.New("leat run did not end when it was asked to"), l.cmd.Process.Kill())
		<-l.ended
		return err
	}
	if l.err != nil {
		err = errors.Join(err, fmt.Errorf("leat run: %w\n%s", l.err, l.said()))
	}
	return err
}

// cpu it used, once it has ended.
func (l *leat) cpu() time.Duration {
	return l.cmd.ProcessState.UserTime() + l.cmd.ProcessState.SystemTime()
}

func (l *leat) status(ctx context.Context) (*leatv1.StatusResponse, error) {
	r, err := l.client.Status(ctx, connect.NewRequest(&leatv1.StatusRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

// patience with a source that does not stream yet.
const patience = 30 * time.Second

// ready waits until the source streams.
func (l *leat) ready(ctx context.Context) error {
	end := time.Now().Add(patience)
	for last := ""; ; {
		st, err := l.status(ctx)
		if err == nil && len(st.Sources) > 0 {
			s := st.Sources[0]
			if s.State == "streaming" {
				return nil
			}
			last = s.State + ": " + s.Reason
			if s.State == "stopped" || time.Now().After(end) {
				return fmt.Errorf("the source does not stream: %s", last)
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("leat run does not answer on %s within %v: %w\n%s", l.addr, patience, err, l.said())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.ended:
			return l.died()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *leat) died() error {
	return fmt.Errorf("leat run ended: %v\n%s", l.err, l.said())
}

// said is what is worse than information of the end of its log, at most ten lines.
func (l *leat) said() string {
	text, err := os.ReadFile(l.log)
	if err != nil {
		return ""
	}
	var lines []string
	for line := range bytes.Lines(text) {
		var entry struct{ Level string }
		if json.Unmarshal(line, &entry) == nil && (entry.Level == "info" || entry.Level == "debug") {
			continue
		}
		lines = append(lines, "  "+strings.TrimSpace(string(line)))
	}
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
