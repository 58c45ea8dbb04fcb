package servers

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// ErrNoPython says that this machine has no Python 3 that makes virtual environments.
var ErrNoPython = errors.New("python3 with venv is not installed (Debian: python3-venv)")

// Python returns an interpreter that has the packages which the file lists (as "pytest==9.2.0", one per line): that of a
// virtual environment in the cache, made at the first use from the package index that pip is set up for. It returns
// [ErrNoPython] where there is none.
func Python(ctx context.Context, say func(string), requirements string) (string, error) {
	list, err := os.ReadFile(requirements)
	if err != nil {
		return "", err
	}
	packages := strings.Fields(string(list))
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", ErrNoPython
	}
	version, err := exec.CommandContext(ctx, python, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoPython, err)
	}
	name := fmt.Sprintf("python-%s-%08x", strings.TrimSpace(string(version)), crc32.ChecksumIEEE([]byte(strings.Join(packages, " "))))
	env, err := process.Cached(ctx, name, func(dir string) error {
		tell(say, "installing %s, once, into %s", strings.Join(packages, ", "), filepath.Dir(dir))
		if err := process.RunTool(ctx, dir, nil, nil, python, "-m", "venv", dir); err != nil {
			return err
		}
		args := append([]string{filepath.Join(dir, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"}, packages...)
		if err := process.RunTool(ctx, dir, nil, nil, args...); err != nil {
			return fmt.Errorf("%w: the packages come from the index that pip uses: check the network and HTTPS_PROXY, or name a mirror by PIP_INDEX_URL", err)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("python packages: %w", err)
	}
	return filepath.Join(env, "bin", "python"), nil
}
