package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/internal/servers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The command finds a started server and a given one by the environment; its exit code comes through
// and the server is gone afterwards.
func TestRun(t *testing.T) {
	t.Setenv(servers.EnvPostgres, "")
	t.Setenv(servers.EnvVersion(17), "")
	t.Setenv(servers.EnvMySQL, "mysql://given/")
	seen := filepath.Join(t.TempDir(), "seen")
	var out bytes.Buffer
	script := `echo "$LEAT_TEST_POSTGRES_URL $LEAT_TEST_POSTGRES_URL_17 $LEAT_TEST_MYSQL_URL" >` + seen + `; exit 7`
	err := run(t.Context(), []string{"run", "-postgres", "17", "-mariadb=false", "-kafka=false", "-opensearch=false", "--", "sh", "-c", script}, &out)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Fatalf("%v\n%s", err, out.String())
	}
	b, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b))
	if len(f) != 3 || !strings.HasPrefix(f[0], "postgres://postgres@127.0.0.1:") || f[0] != f[1] || f[2] != "mysql://given/" {
		t.Errorf("the command sees %q", f)
	}
	gone := &servers.Server{Kind: servers.KindPostgres, URL: f[0]}
	if err := gone.Exec(t.Context(), "select 1"); err == nil {
		t.Error("the server outlives the command")
	}
	if !strings.Contains(out.String(), "PostgreSQL 17, MySQL (given) ready after") {
		t.Errorf("it says %s", out.String())
	}
}

func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{nil, {"jump"}, {"run"}, {"run", "-postgres", "9", "--", "true"}, {"run", "-no-such"}} {
		if err := run(t.Context(), args, new(bytes.Buffer)); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
