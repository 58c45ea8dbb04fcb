package servers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers/process"
)

const signalNone = syscall.Signal(0)

// tempDir is one that an unprivileged user may enter: those of testing lie in a closed folder.
func tempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o711))
	return dir
}

func TestCachedMadeOnce(t *testing.T) {
	t.Setenv("LEAT_CACHE", filepath.Join(tempDir(t), "new"))
	var wg sync.WaitGroup
	var fills atomic.Int32
	for range 16 {
		wg.Go(func() {
			dir, err := process.Cached(t.Context(), "thing", func(dir string) error {
				fills.Add(1)
				return os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
			})
			if err != nil || !process.Exists(filepath.Join(dir, "file")) {
				t.Errorf("%s: %v", dir, err)
			}
		})
	}
	wg.Wait()
	if fills.Load() != 1 {
		t.Errorf("made %d times", fills.Load())
	}
}

func TestCachedNeverHalf(t *testing.T) {
	root := tempDir(t)
	t.Setenv("LEAT_CACHE", root)
	dead := filepath.Join(root, ".new-thing-123")
	must(t, os.Mkdir(dead, 0o755))
	boom := errors.New("boom")
	_, err := process.Cached(t.Context(), "thing", func(dir string) error {
		if process.Exists(dead) {
			t.Error("a dead run's half is still there")
		}
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), boom)
	})
	if !errors.Is(err, boom) || process.Exists(filepath.Join(root, "thing")) {
		t.Errorf("err %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".new-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := process.Cached(t.Context(), "thing", func(string) error { return nil }); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestLockEndsWithContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := process.LockFile(t.Context(), path)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := process.LockFile(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err %v", err)
	}
	unlock()
	unlock, err = process.LockFile(t.Context(), path)
	must(t, err)
	unlock()
}

// A folder of mktemp -d, and a umask that closes everything, do for a cache and for root's servers.
func TestClosedCache(t *testing.T) {
	root := filepath.Join(tempDir(t), "closed")
	must(t, os.Mkdir(root, 0o700))
	t.Setenv("LEAT_CACHE", root)
	dir, err := process.Cached(t.Context(), "thing", func(dir string) error {
		return errors.Join(os.Mkdir(filepath.Join(dir, "bin"), 0o700), os.WriteFile(filepath.Join(dir, "bin", "true"), []byte("#!/bin/sh\n"), 0o700), process.OpenTree(dir))
	})
	must(t, err)
	must(t, process.RunTool(t.Context(), dir, process.Unprivileged(), nil, filepath.Join(dir, "bin", "true")))
	if process.Unprivileged() == nil {
		return // nothing above it is in our way either
	}
	must(t, os.Chmod(root, 0o700))
	t.Setenv("LEAT_CACHE", filepath.Join(root, "below"))
	_, err = process.Cached(t.Context(), "thing", func(string) error { return nil })
	wantCure(t, err, root+":", "chmod o+x", "LEAT_CACHE")
}

// What cannot be had is said with its cure.
func TestCures(t *testing.T) {
	t.Run("no network", func(t *testing.T) {
		t.Setenv("LEAT_CACHE", tempDir(t))
		t.Setenv("LEAT_MAVEN_URL", "http://127.0.0.1:1")
		_, err := Postgres(t.Context(), PostgresOptions{})
		wantCure(t, err, "LEAT_MAVEN_URL")
		t.Setenv("LEAT_DEBIAN_MIRROR", "http://127.0.0.1:1/debian")
		_, err = MySQL(t.Context(), MySQLOptions{})
		wantCure(t, err, "check the network", "by its URL")
	})
	t.Run("no Debian", func(t *testing.T) {
		bin := t.TempDir()
		for _, name := range []string{"bash"} {
			must(t, os.Symlink("/bin/"+name, filepath.Join(bin, name)))
		}
		t.Setenv("PATH", bin)
		t.Setenv("LEAT_CACHE", tempDir(t))
		_, err := MariaDB(t.Context(), MySQLOptions{})
		wantCure(t, err, "apt-get is missing", "by its URL")
	})
	t.Run("cache cannot be written", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		must(t, os.WriteFile(file, nil, 0o644))
		t.Setenv("LEAT_CACHE", file)
		_, err := Postgres(t.Context(), PostgresOptions{})
		wantCure(t, err, "LEAT_CACHE")
	})
	t.Run("a setting the server refuses", func(t *testing.T) {
		_, err := Postgres(t.Context(), PostgresOptions{Params: map[string]string{"no_such_setting": "1"}})
		wantCure(t, err, "no_such_setting")
	})
}

func wantCure(t *testing.T, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("the error lacks %q: %v", w, err)
		}
	}
}

func TestGiven(t *testing.T) {
	for _, name := range []string{EnvPostgres, EnvVersion(15), EnvVersion(17), EnvMySQL, EnvMariaDB} {
		t.Setenv(name, "")
	}
	for _, k := range []Kind{KindPostgres, KindMySQL, KindMariaDB} {
		if s := Given(k, 0); s != nil {
			t.Errorf("%s given by nothing", k)
		}
	}
	t.Setenv(EnvPostgres, "postgres://u@h:1/any?sslmode=disable")
	if s := Given(KindPostgres, 0); s == nil || s.DatabaseURL("x y") != "postgres://u@h:1/x%20y?sslmode=disable" {
		t.Errorf("%+v", s)
	}
	if s := Given(KindPostgres, 15); s != nil {
		t.Error("an unnamed version's URL serves 15")
	}
	t.Setenv(EnvVersion(15), "postgres://fifteen")
	t.Setenv(EnvVersion(DefaultPostgres), "postgres://default")
	if a, b := Given(KindPostgres, 15), Given(KindPostgres, 0); a.URL != "postgres://fifteen" || b.URL != "postgres://default" {
		t.Errorf("%s, %s", a.URL, b.URL)
	}
	t.Setenv(EnvMariaDB, "mysql://u:p@h:3/")
	s := Given(KindMariaDB, 0)
	if err := errors.Join(s.Stop(t.Context()), s.Stop(t.Context())); err != nil {
		t.Error(err)
	}
	for _, err := range []error{s.Kill(), s.Shutdown(t.Context()), s.Restart(t.Context())} {
		if !errors.Is(err, ErrGiven) {
			t.Errorf("err %v", err)
		}
	}
}
