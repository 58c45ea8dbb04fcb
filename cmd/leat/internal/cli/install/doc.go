// Package install is about the installation: leat.yaml, the server, what runs there (init, check, run, demo,
// plan, apply, config, backup).
package install

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

// commands are those of one command line.
type commands struct{ *shell.App }
