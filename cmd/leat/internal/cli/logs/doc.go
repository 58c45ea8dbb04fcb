// Package logs reads the log on disk, with or without a server: leat log.
package logs

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

// commands are those of one command line.
type commands struct{ *shell.App }
