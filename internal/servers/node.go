package servers

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// ErrNoNode says that this machine has no Node with npm.
var ErrNoNode = errors.New("node with npm is not installed (Debian: nodejs, npm)")

// Node returns Node's program and a folder node_modules that has what the package-lock.json in dir lists: in the cache,
// made at the first use from the registry that npm is set up for; no package's own scripts are run. It returns
// [ErrNoNode] where there is none.
func Node(ctx context.Context, say func(string), dir string) (program, modules string, err error) {
	program, err = exec.LookPath("node")
	npm, missing := exec.LookPath("npm")
	if err != nil || missing != nil {
		return "", "", ErrNoNode
	}
	var list [2][]byte
	names := [2]string{"package.json", "package-lock.json"}
	for i, name := range names {
		if list[i], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return "", "", err
		}
	}
	entry, err := process.Cached(ctx, fmt.Sprintf("node-%08x", crc32.ChecksumIEEE(list[1])), func(to string) error {
		tell(say, "installing what %s lists, once, into %s", filepath.Join(dir, names[1]), filepath.Dir(to))
		for i, name := range names {
			if err := os.WriteFile(filepath.Join(to, name), list[i], 0o644); err != nil {
				return err
			}
		}
		if err := process.RunTool(ctx, to, nil, nil, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
			return fmt.Errorf("%w: the packages come from the registry that npm uses: check the network and HTTPS_PROXY, or name a mirror by npm_config_registry", err)
		}
		return nil
	})
	if err != nil {
		return "", "", fmt.Errorf("node packages: %w", err)
	}
	return program, filepath.Join(entry, "node_modules"), nil
}
