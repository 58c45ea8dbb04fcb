package cli_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/cmd/leat/internal/api"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
)

var update = flag.Bool("update", false, "rewrite what scripts compare with")

// leat is the program of the scripts, in a process of its own: the real command line, with a server's
// half that only says what it was asked.
func leat() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := cli.Run(ctx, testDeps(), os.Args[1:])
	stop()
	cli.Report(os.Stderr, err)
	os.Exit(cli.ExitCode(err))
}

// now is the moment of all scripts.
var now = time.Date(2026, 11, 21, 10, 20, 0, 0, time.UTC)

func testDeps() cli.Deps {
	return cli.Deps{
		Version: "v0.0.1",
		Now:     func() time.Time { return now },
		Run: func(ctx context.Context, o cli.RunOptions) error {
			fmt.Fprintf(o.Stdout, "run %s %s %s %s\n", o.Path, filepath.Base(o.Config.Data), o.LogFormat, o.LogLevel)
			if o.Config.Listen == "127.0.0.1:1" {
				return errors.New("listen on 127.0.0.1:1: permission denied")
			}
			if _, err := o.Reload(); err != nil {
				return err
			}
			<-ctx.Done()
			fmt.Fprintln(o.Stdout, "stopped")
			return nil
		},
		Check:    testCheck,
		InitFrom: testInitFrom,
		Demo: func(_ context.Context, o cli.DemoOptions) error {
			fmt.Fprintf(o.Stdout, "demo %d %q %v %d json=%v\n", o.Seconds, o.URL, o.MySQL, o.Rate, o.JSON)
			return nil
		},
		LogDir: func(data, source string) string { return filepath.Join(data, "logs", source) },
	}
}

func testCheck(_ context.Context, cfg *config.Config) []pipeline.Finding {
	switch os.Getenv("CHECK") {
	case "good":
		return nil
	case "warning":
		return []pipeline.Finding{{Level: "warning", Code: "identity", Place: "public.files", What: "the replica identity lacks namespace_id", Cure: "ALTER TABLE public.files REPLICA IDENTITY FULL"}}
	}
	return []pipeline.Finding{
		{Level: "error", Code: "wal_level", Place: "sources.main", What: "wal_level is replica\x1b[2J", Cure: "ALTER SYSTEM SET wal_level = logical, then restart"},
		{Level: "info", Code: "version", Place: "sources.main", What: "PostgreSQL 18.1"},
	}
}

func testInitFrom(_ context.Context, url string) (cli.Found, error) {
	if url != "postgres://trusted@db:5432/app" && !strings.Contains(url, ":s3cret@") && !strings.Contains(url, ":p%20w@") && !strings.Contains(url, ":p+w@") {
		return cli.Found{}, errors.New("connect to db:5432: password authentication failed")
	}
	return cli.Found{Server: "PostgreSQL 18.1", Tables: []cli.FoundTable{
		{Name: "public.users", Key: []string{"id"}, Rows: 1234567},
		{Name: "app.log", Rows: -1},
	}, Findings: []pipeline.Finding{
		{Level: "error", Code: "wal_level", Place: "setting wal_level", What: "wal_level is replica", Cure: "ALTER SYSTEM SET wal_level = logical, then restart"},
	}}, nil
}

func TestMain(m *testing.M) {
	testscript.Main(leaky{m}, map[string]func(){"leat": leat})
}

// leaky looks for goroutines that are left when all tests are done.
type leaky struct{ m *testing.M }

func (l leaky) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("os/signal.loop")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

const (
	readToken    = "read-me-1234"
	operateToken = "operate-me-1234"
)

// serve starts a real API server with b behind it.
func serve(t testing.TB, b api.Backend, tokens ...api.Token) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	s, err := api.New(api.Options{Backend: b, Listen: addr, PublicURL: "http://" + addr, Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return addr
}

func token(name, text string, roles ...string) api.Token {
	sum := sha256.Sum256([]byte(text))
	return api.Token{Name: name, SHA256: hex.EncodeToString(sum[:]), Roles: roles}
}

// TestScripts runs testdata/script. Besides testscript's own commands there are
//
//	serve [tokens]      starts an API server and sets LEAT_ADDR
//	exits N ARGS...     runs leat, which must end with exit code N
//	mode N FILE         the permissions of a file, octal
//	makelog FOLDER SOURCE, flip FOLDER: see log_test.go; interrupt: see interrupt_test.go;
//	stranger: see tls_test.go
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values["t"] = e.T()
			e.Setenv("CHECK", "")
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each process under -race sleeps a second at its end
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"serve": serveCmd, "exits": exitsCmd, "mode": modeCmd,
			"makelog": makelogCmd, "flip": flipCmd, "interrupt": interruptCmd, "stranger": strangerCmd},
	})
}

func serveCmd(ts *testscript.TestScript, _ bool, args []string) {
	var tokens []api.Token
	if len(args) > 0 {
		tokens = []api.Token{token("reader", readToken, "read"), token("operator", operateToken, "operate")}
	}
	ts.Setenv("LEAT_ADDR", serve(ts.Value("t").(testing.TB), newBackend(), tokens...))
}

func exitsCmd(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec("leat", args[1:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func modeCmd(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}
