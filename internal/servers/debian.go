package servers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/leat-cdc/leat/internal/servers/process"
)

//go:embed unpack.sh
var unpackScript string

// debianRoot is a small tree of unpacked Debian packages that brings its own C library.
type debianRoot struct {
	dir    string
	loader []string // the dynamic loader and where it finds libraries
}

// debian returns the cache's entry with a suite's packages, all dependencies included, unpacking them
// first when it is missing; extra packages come without dependencies.
func debian(ctx context.Context, entry, suite, say, pkg string, tellTo func(string), extra ...string) (*debianRoot, error) {
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("%s is started from Debian packages, on Linux only: name a server of your own by its URL in the environment", say)
	}
	dir, err := process.Cached(ctx, entry, func(dir string) error {
		tell(tellTo, "downloading %s, once, into %s", say, filepath.Dir(dir))
		script := filepath.Join(dir, "unpack.sh")
		if err := os.WriteFile(script, []byte(unpackScript), 0o644); err != nil {
			return err
		}
		cmd := process.Command(dir, nil, append([]string{"bash", script, dir, suite, pkg}, extra...))
		cmd.Env = append(os.Environ(), "LC_ALL=C") // proxies, a mirror
		return errors.Join(process.RunToEnd(ctx, dir, cmd, nil), os.Remove(script))
	})
	if err != nil {
		return nil, err
	}
	// usr/lib/TRIPLET or, before the merge of /lib and /usr/lib, lib/TRIPLET
	var lib string
	for _, pattern := range []string{"usr/lib/*/ld-linux*.so.*", "lib/*/ld-linux*.so.*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil, err
		}
		if len(found) > 0 && lib == "" {
			lib = found[0]
		}
	}
	if lib == "" {
		return nil, fmt.Errorf("find the dynamic loader of %s in %s: remove that folder to unpack it again", say, dir)
	}
	triplet := filepath.Base(filepath.Dir(lib))
	path := ""
	for _, d := range []string{"usr/lib/" + triplet, "lib/" + triplet, "usr/lib/" + triplet + "/mysql/private", "usr/lib/mysql/private", "usr/lib/" + triplet + "/systemd"} {
		path += ":" + filepath.Join(dir, d)
	}
	return &debianRoot{dir: dir, loader: []string{lib, "--library-path", path[1:]}}, nil
}

// run is the command line of a program of the tree.
func (r *debianRoot) run(program string, args ...string) []string {
	return append(append(append([]string{}, r.loader...), filepath.Join(r.dir, program)), args...)
}

// PostgresCommand is one of PostgreSQL's client programs ("pg_recvlogical", "psql", "pg_dump"), ready to run:
// the embedded servers have none. They are DefaultPostgres's, from Debian's packages, and talk to older
// and newer servers as well. The first use downloads them (about 30 MB); that works on Debian only.
func PostgresCommand(ctx context.Context, say func(string), name string, args ...string) (*exec.Cmd, error) {
	pkg := "postgresql-client-" + strconv.Itoa(DefaultPostgres)
	root, err := debian(ctx, pkg, "trixie", "PostgreSQL's client programs (30 MB)", pkg, say)
	if err != nil {
		return nil, err
	}
	s := Server{
		Kind: KindPostgres, Version: strconv.Itoa(DefaultPostgres), loader: root.loader,
		BinDir: filepath.Join(root.dir, "usr/lib/postgresql", strconv.Itoa(DefaultPostgres), "bin"),
	}
	return s.Command(ctx, name, args...)
}
