// Package status shows how sources and subscriptions fare: leat status.
package status

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

// commands are those of one command line.
type commands struct{ *shell.App }
