package install

import (
	"fmt"
	"os"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

// Config is leat config.
func Config(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := fault.Group(&cobra.Command{Use: "config", Short: "The schema of leat.yaml; the file with its defaults"})
	schema := &cobra.Command{
		Use:     "schema",
		Short:   "The JSON Schema of leat.yaml",
		Long:    "The JSON Schema (draft 2020-12) of leat.yaml: editors complete and check with it.",
		Example: "  leat config schema > leat.schema.json",
		Args:    fault.Wants(),
		RunE: func(*cobra.Command, []string) error {
			text, err := config.Schema()
			if err != nil {
				return err
			}
			a.Out.Printf("%s\n", trimEnd(text))
			return nil
		},
	}
	var json bool
	schema.Flags().BoolVar(&json, "json", false, "one JSON document, as always")
	schema.Flags().Lookup("json").Hidden = true
	var names bool
	show := &cobra.Command{
		Use:     "show",
		Short:   "leat.yaml with its defaults filled in and its secrets masked",
		Long:    "The file as Leat reads it here: defaults filled in, variables expanded, secrets masked. What it prints may\nbe shown to anybody.",
		Example: "  leat config show\n  leat config show --json | jq .subscriptions.search",
		Args:    fault.Wants(),
		RunE:    func(*cobra.Command, []string) error { return a.showConfig(names) },
	}
	show.Flags().BoolVar(&names, "names", false, "leave ${NAME} and what depends on it as it stands")
	a.JSONFlag(show)
	cmd.AddCommand(schema, show)
	return cmd
}

func (a *commands) showConfig(names bool) error {
	cfg, err := a.Load(names)
	if err != nil {
		return err
	}
	a.Warn(cfg)
	text, err := config.Show(cfg)
	if err != nil {
		return err
	}
	if a.JSON {
		if text, err = yaml.YAMLToJSON(text); err != nil {
			return fmt.Errorf("show config: %w", err)
		}
	}
	a.Out.Printf("%s\n", trimEnd(text))
	return nil
}

func trimEnd(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b
}

// Backup is leat backup.
func Backup(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := &cobra.Command{
		Use:   "backup FOLDER",
		Short: "A copy of the data folder, from which a server can start",
		Long: "Copies the state and the log of the data folder into a new folder; the server may run meanwhile.\n" +
			"See docs/operations.md for how to restore.",
		Example: "  leat backup /var/backups/leat-2026-11-21",
		Args:    fault.Wants("FOLDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.Backup == nil {
				return fault.Unsupported("leat backup")
			}
			data, err := a.Data()
			if err != nil {
				return err
			}
			if _, err := os.Lstat(args[0]); err == nil {
				return fault.New(fault.WrongUsage, fmt.Errorf("%s is already there: nothing was written", args[0]), "Name a folder that does not exist yet.")
			}
			if err := a.Backup(cmd.Context(), data, args[0]); err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			a.Out.Printf("wrote %s\n", args[0])
			return nil
		},
	}
	return cmd
}
