package main

import (
	"path/filepath"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli"
)

// deps are what the commands are made of.
func deps() cli.Deps {
	return cli.Deps{
		Version: version,
		LogDir:  func(data, source string) string { return filepath.Join(data, "logs", source) },
	}
}
