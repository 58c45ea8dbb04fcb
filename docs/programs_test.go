package docs_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/filter"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/pull"
	"github.com/leat-cdc/leat/sinks/webhook"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

var fence = regexp.MustCompile("(?ms)^```([a-z]+)(?: ([^\n]+))?\n(.*?)^```$")

// block is a fenced part of a page.
type block struct{ lang, name, text string }

func blocks(t *testing.T, page string) []block {
	t.Helper()
	var out []block
	for _, m := range fence.FindAllStringSubmatch(read(t, page), -1) {
		out = append(out, block{m[1], m[2], m[3]})
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// extract writes the program called name of subscribers.md into a file.
func extract(t *testing.T, name string) string {
	t.Helper()
	for _, b := range blocks(t, "subscribers.md") {
		if b.name == name {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	t.Fatalf("subscribers.md has no program %s", name)
	return ""
}

// build compiles an extracted Go program as if it stood in this module.
func build(t *testing.T, name string) string {
	t.Helper()
	src := extract(t, name)
	here, err := filepath.Abs(filepath.Join("program", strings.TrimSuffix(name, ".go"), "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{here: src}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(filepath.Dir(src), "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(filepath.Dir(src), "program")
	cmd := exec.Command("go", "build", "-overlay", list, "-o", bin, "./program/"+strings.TrimSuffix(name, ".go"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return bin
}

// start runs a program until the test ends and returns its lines.
func start(t *testing.T, env []string, name string, args ...string) func() string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range lines { // until its output ends
		}
		_ = cmd.Wait() // killed
	})
	return func() string {
		t.Helper()
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("%s ended: %s", name, failed.String())
			}
			return line
		case <-time.After(time.Minute):
			t.Fatalf("%s says nothing", name)
		}
		return ""
	}
}

// delivery is n inserts of as many keys, at the offsets 1000 and up.
func delivery(number uint64, n int) *pipeline.Delivery {
	table := pipetest.FilesTable("files")
	var tx []pipetest.Change
	for i := range n {
		tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: table, After: pipetest.Row{fmt.Sprint(i), "1", "/ä"}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1}, time.Unix(1_700_000_000, 0), tx)
	b.Base = 1000
	for i := range b.Events {
		b.Events[i].Hash = uint64(i)
	}
	return &pipeline.Delivery{Subscription: "features", Source: "files", Number: number, Attempt: 1, Events: n,
		Runs: []pipeline.Run{{Batch: b, To: uint32(n)}}}
}

func newHook(t *testing.T, url, key string) *webhook.Sink {
	t.Helper()
	s, err := webhook.ParseSecret(key)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := webhook.New(webhook.Options{URL: url, Secrets: []webhook.Secret{s}, Timeout: time.Minute, Source: "files",
		Permit:  func(a netip.Addr) bool { return a.IsLoopback() },
		Encoder: encode.JSON(encode.Options{Source: "files", PublicURL: "http://leat", Separator: ',', Form: pipetest.PGForm})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	return sink
}

// TestReceivers runs each receiver of the page against the webhook sink. Python and Node are used where they
// are installed: make test needs nothing but Go. Which ran stands in the output (-v).
func TestReceivers(t *testing.T) {
	for _, file := range []string{"receiver.go", "receiver.py", "receiver.mjs", "standard.go", "standard.py", "standard.ts"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			env := []string{"WEBHOOK_SECRET=" + secret, "PORT=0"}
			switch filepath.Ext(file) {
			case ".go":
				receive(t, start(t, env, build(t, file)))
			case ".py":
				if python := withPython(t, file); python != "" {
					receive(t, start(t, env, python, extract(t, file)))
				}
			default:
				if node, program := withNode(t, file); node != "" {
					receive(t, start(t, env, node, program))
				}
			}
		})
	}
}

// withPython is an interpreter with the packages of the page's programs; empty where there is none.
func withPython(t *testing.T, file string) string {
	t.Helper()
	python, err := servers.Python(t.Context(), func(s string) { t.Log(s) }, filepath.Join("..", "clients", "python", "tests", "requirements.txt"))
	if errors.Is(err, servers.ErrNoPython) {
		t.Logf("NOT RUN: %v, so %s of subscribers.md was not tried here", err, file)
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return python
}

// withNode is Node and a program of the page as it takes it, compiled where it is TypeScript; empty where there is none.
func withNode(t *testing.T, file string) (node, program string) {
	t.Helper()
	node, modules, err := servers.Node(t.Context(), func(s string) { t.Log(s) }, filepath.Join("..", "clients", "typescript", "tests"))
	if errors.Is(err, servers.ErrNoNode) {
		t.Logf("NOT RUN: %v, so %s of subscribers.md was not tried here", err, file)
		return "", ""
	}
	if err != nil {
		t.Fatal(err)
	}
	program = extract(t, file)
	if filepath.Ext(file) != ".ts" {
		return node, program
	}
	dir := filepath.Dir(program)
	if err := errors.Join(os.Symlink(modules, filepath.Join(dir, "node_modules")), os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"type": "module"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	tsc := exec.CommandContext(t.Context(), node, filepath.Join(modules, "typescript", "bin", "tsc"), "--strict", "--target", "es2022", "--module", "nodenext", "--types", "node", program)
	tsc.Dir = dir
	if out, err := tsc.CombinedOutput(); err != nil {
		t.Fatalf("tsc %s: %v\n%s", file, err, out)
	}
	return node, strings.TrimSuffix(program, ".ts") + ".js"
}

func receive(t *testing.T, next func() string) {
	address := strings.TrimPrefix(next(), "listening on ")
	if _, _, err := net.SplitHostPort(address); err != nil {
		t.Fatalf("the receiver does not say where it listens: %v", err)
	}
	url := "http://" + address
	good, wrong := newHook(t, url, secret), newHook(t, url, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	if _, err := wrong.Deliver(t.Context(), delivery(1, 2)); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("signed with another secret: %v, want 401", err)
	}
	want := func(lines ...string) {
		t.Helper()
		for _, w := range lines {
			if got := next(); got != w {
				t.Errorf("the receiver says %q, want %q", got, w)
			}
		}
	}
	for number, c := range []struct {
		events int
		lines  []string
	}{
		{1, []string{"applied files-1000"}},
		{3, []string{"ignored files-1000", "applied files-1001", "applied files-1002"}},
	} {
		out, err := good.Deliver(t.Context(), delivery(uint64(number), c.events))
		if out != nil || err != nil {
			t.Fatalf("deliver %d: %v, %v", c.events, out, err)
		}
		want(c.lines...)
	}
	if err := good.Resolve(t.Context(), 1003, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	want("ignored " + encode.ResolvedID("files", 1003))
}

// servePull has the pull subscription "features" behind a server as Leat has it.
func servePull(t *testing.T) (*pull.Sink, string) {
	t.Helper()
	hub := pull.NewHub()
	sink := hub.Sink("features", pull.Options{Source: "files",
		Encoder: encode.Proto(encode.Options{Source: "files", Form: pipetest.PGForm, Share: encode.NewShare(1 << 20)})})
	mux := http.NewServeMux()
	mux.Handle(hub.Handler())
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(func() { sink.Close(); srv.Close(); hub.Wait() })
	return sink, srv.URL
}

// TestPullClients runs the clients of the page against the pull sink: what they acked is done.
func TestPullClients(t *testing.T) {
	for _, file := range []string{"pull.go", "pull.py"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			sink, url := servePull(t)
			env := []string{"LEAT_URL=" + url, "LEAT_TOKEN="}
			var next func() string
			if file == "pull.go" {
				next = start(t, env, build(t, file))
			} else {
				python := withPython(t, file)
				if python == "" {
					return
				}
				next = start(t, append(env, "PYTHONPATH="+filepath.Join("..", "clients", "python", "src"), "PYTHONDONTWRITEBYTECODE=1"), python, extract(t, file))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := sink.Deliver(ctx, delivery(1, 2))
			if out != nil || err != nil {
				t.Fatalf("deliver: %v, %v; was it acked?", out, err)
			}
			got := []string{next(), next()} // of two keys, so in any order
			slices.Sort(got)
			if want := []string{"applied files-1000 insert public.files /ä", "applied files-1001 insert public.files /ä"}; !slices.Equal(got, want) {
				t.Errorf("the client says %q, want %q", got, want)
			}
		})
	}
}

var curl = regexp.MustCompile(`(?s)curl -s http://127\.0\.0\.1:7070(\S+) -H 'Content-Type: application/json' \\\s+-d '([^']+)'`)

// TestReceiveAndAckByHand sends what the page's curl commands send.
func TestReceiveAndAckByHand(t *testing.T) {
	calls := curl.FindAllStringSubmatch(read(t, "subscribers.md"), -1)
	if len(calls) != 3 {
		t.Fatalf("%d curl calls in subscribers.md, want Receive, Ack and Fetch", len(calls))
	}
	var fetch leatv1.FetchRequest // the app answers it: here it is enough that it can be read
	if err := protojson.Unmarshal([]byte(calls[2][2]), &fetch); err != nil || fetch.Subscription != "features" || fetch.From == 0 || fetch.Limit != 500 {
		t.Errorf("%s: %v %v", calls[2][2], &fetch, err)
	}
	sink, url := servePull(t)
	done := make(chan error, 1)
	go func() {
		out, err := sink.Deliver(t.Context(), delivery(1, 2))
		if err == nil && out != nil {
			err = fmt.Errorf("outcomes %v", out)
		}
		done <- err
	}()
	post := func(call []string, old, lease string) (answer struct{ Lease string }) {
		t.Helper()
		resp, err := http.Post(url+call[1], "application/json", strings.NewReader(strings.Replace(call[2], old, lease, 1)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: %s, %v", call[1], resp.Status, err)
		}
		return answer
	}
	lease := post(calls[0], "", "").Lease
	post(calls[1], "hod753z05a-1", lease)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestFilters compiles each filter of the page.
func TestFilters(t *testing.T) {
	n := 0
	for _, b := range blocks(t, "subscribers.md") {
		if b.lang != "cel" {
			continue
		}
		for expr := range strings.Lines(b.text) {
			n++
			if _, err := filter.Compile(filter.Options{Expr: strings.TrimSpace(expr), Form: pipetest.PGForm}); err != nil {
				t.Errorf("%s: %v", expr, err)
			}
		}
	}
	if n == 0 {
		t.Error("subscribers.md shows no filter")
	}
}

// TestEventsOnThePage: the JSON is JSON, and resolved events are as the encoder writes them.
func TestEventsOnThePage(t *testing.T) {
	for _, b := range blocks(t, "subscribers.md") {
		if b.lang != "json" {
			continue
		}
		var got any
		if err := json.Unmarshal([]byte(b.text), &got); err != nil {
			t.Errorf("%v in:\n%s", err, b.text)
		}
		if !strings.Contains(b.text, "leat.resolved") {
			continue
		}
		var want any
		at := time.Date(2026, 11, 21, 11, 23, 2, 3_032_000, time.UTC)
		if err := json.Unmarshal(encode.Resolved("files", 1882466739552269, at), &want); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("resolved is\n%v, the encoder writes\n%v", got, want)
		}
	}
}
