// Package operate steers what runs: pause, resume, throttle, seek, source, ranges, and audit, which tells
// who did.
package operate

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

// commands are those of one command line.
type commands struct{ *shell.App }
