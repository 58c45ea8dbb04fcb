// Package events shows events: leat tail, leat explain.
package events

import (
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

// commands are those of one command line.
type commands struct{ *shell.App }
