package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
)

// later are the commands that a later version will have: their names are taken, and they refuse.
var later = []laterCommand{
	{"verify", "compare what was delivered with the source"},
}

type laterCommand struct{ name, short string }

func (l laterCommand) command() *cobra.Command {
	return &cobra.Command{
		Use:                l.name,
		Short:              l.short,
		Long:               "leat " + l.name + ": " + l.short + ". Not supported by this version.",
		Hidden:             true,
		DisableFlagParsing: true, // its flags are not known yet, so they are not what is wrong
		RunE: func(cmd *cobra.Command, args []string) error {
			if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
				return cmd.Help()
			}
			return fault.Unsupported("leat " + l.name)
		},
	}
}
