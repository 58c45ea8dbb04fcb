package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/leat-cdc/leat/internal/servers/process"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// postgresPrograms returns the folder of a version's programs (bin, lib, share), downloading it first
// when the cache lacks it. LEAT_MAVEN_URL names a mirror of Maven Central.
func postgresPrograms(ctx context.Context, major int, say func(string)) (string, error) {
	release, ok := postgresReleases[major]
	if !ok {
		return "", fmt.Errorf("there is no PostgreSQL %d here: choose one of %v", major, PostgresVersions())
	}
	return process.Cached(ctx, "postgres-"+release, func(dir string) error {
		tell(say, "downloading PostgreSQL %s (15 MB), once, into %s", strings.TrimSuffix(release, ".0"), filepath.Dir(dir))
		return errors.Join(fetchPostgres(ctx, release, dir), process.OpenTree(dir))
	})
}

// fetchPostgres downloads and unpacks a release into dir.
//
// The library only knows how to do that on the way to starting a server. So it is given a data folder
// that looks initialised and is not: it fetches, unpacks, and its start fails at once, as root as well
// as otherwise. Whether the programs are there decides, not that error.
func fetchPostgres(ctx context.Context, release, dir string) error {
	port, err := process.FreePort()
	if err != nil {
		return err
	}
	work := filepath.Join(dir, ".fetch")
	data := filepath.Join(work, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	major, _, _ := strings.Cut(release, ".")
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(major+"\n"), 0o600); err != nil {
		return err
	}
	cfg := embedded.DefaultConfig().Version(embedded.PostgresVersion(release)).Port(uint32(port)).Logger(io.Discard).
		CachePath(filepath.Join(work, "cache")).RuntimePath(filepath.Join(work, "run")).DataPath(data).BinariesPath(dir)
	if mirror := os.Getenv("LEAT_MAVEN_URL"); mirror != "" {
		cfg = cfg.BinaryRepositoryURL(strings.TrimSuffix(mirror, "/"))
	}
	pg := embedded.NewDatabase(cfg)
	result := make(chan error, 1)
	go func() { result <- pg.Start() }() // not cancellable: left behind when ctx ends, with a folder that is thrown away
	select {
	case err = <-result:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err == nil { // not seen; it would be a server of nobody
		return errors.Join(errors.New("an empty data folder was started"), pg.Stop())
	}
	for _, program := range []string{"postgres", "initdb"} {
		if !process.Exists(filepath.Join(dir, "bin", program)) {
			return fmt.Errorf("%w: PostgreSQL comes from Maven Central: check the network and HTTPS_PROXY, name a mirror by LEAT_MAVEN_URL, or name a server of your own by its URL", err)
		}
	}
	return os.RemoveAll(work)
}

// postgresTemplate returns the cache's folder whose "data" is a freshly initialised data folder.
func postgresTemplate(ctx context.Context, home string, major int, as *process.Identity) (string, error) {
	owner := os.Geteuid()
	if as != nil {
		owner = as.Uid
	}
	name := fmt.Sprintf("postgres-%s-data-%d", postgresReleases[major], owner)
	return process.Cached(ctx, name, func(dir string) error {
		if err := process.Chown(dir, as); err != nil {
			return err
		}
		// checksums on, as PostgreSQL 18 has by default, so that all versions do the same work
		return process.RunTool(ctx, dir, as, nil, filepath.Join(home, "bin", "initdb"), "-D", filepath.Join(dir, "data"),
			"-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums", "--no-sync")
	})
}

func tell(say func(string), format string, args ...any) {
	if say != nil {
		say(fmt.Sprintf(format, args...))
	}
}
