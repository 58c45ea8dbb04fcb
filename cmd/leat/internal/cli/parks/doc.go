// Package parks is about parked keys and dead letters: parked, redrive, discard.
package parks

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

// commands are those of one command line.
type commands struct{ *shell.App }
