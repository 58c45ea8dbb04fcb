package cli

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "config", Short: "The schema of leat.yaml; the file with its defaults"})
	schema := &cobra.Command{
		Use:     "schema",
		Short:   "The JSON Schema of leat.yaml",
		Long:    "The JSON Schema (draft 2020-12) of leat.yaml: editors complete and check with it.",
		Example: "  leat config schema > leat.schema.json",
		Args:    wants(),
		RunE: func(*cobra.Command, []string) error {
			text, err := config.Schema()
			if err != nil {
				return err
			}
			a.out.Printf("%s\n", trimEnd(text))
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
		Args:    wants(),
		RunE:    func(*cobra.Command, []string) error { return a.showConfig(names) },
	}
	show.Flags().BoolVar(&names, "names", false, "leave ${NAME} and what depends on it as it stands")
	a.jsonFlag(show)
	cmd.AddCommand(schema, show)
	return cmd
}

func (a *app) showConfig(names bool) error {
	cfg, err := a.load(names)
	if err != nil {
		return err
	}
	a.warn(cfg)
	text, err := config.Show(cfg)
	if err != nil {
		return err
	}
	if a.asJSON {
		if text, err = yaml.YAMLToJSON(text); err != nil {
			return fmt.Errorf("show config: %w", err)
		}
	}
	a.out.Printf("%s\n", trimEnd(text))
	return nil
}

func trimEnd(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == '\n' {
		b = b[:len(b)-1]
	}
	return b
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "The version of this program",
		Example: "  leat version --json",
		Args:    wants(),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
				OS       string `json:"os"`
				Arch     string `json:"arch"`
			}{Version: a.Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			if a.asJSON {
				return a.document(v)
			}
			a.out.Printf("leat %s %s %s/%s\n", v.Version, v.Go, v.OS, v.Arch)
			return nil
		},
	}
	a.jsonFlag(cmd)
	return cmd
}

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Completion for a shell",
		Long:  "Prints a script that makes the shell complete commands, flags, and the names in leat.yaml.",
		Example: "  source <(leat completion bash)\n" +
			"  leat completion zsh > \"${fpath[1]}/_leat\"\n" +
			"  leat completion fish > ~/.config/fish/completions/leat.fish",
		Args:      wants("bash|zsh|fish"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.out)
			case "fish":
				return cmd.Root().GenFishCompletion(a.out, true)
			}
			return usage(cmd, "no completion for %s%s", args[0], nearest(args[0], shells, ""))
		},
	}
}

func (a *app) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FOLDER",
		Short: "A copy of the data folder, from which a server can start",
		Long: "Copies the state and the log of the data folder into a new folder; the server may run meanwhile.\n" +
			"See docs/operations.md for how to restore.",
		Example: "  leat backup /var/backups/leat-2026-11-21",
		Args:    wants("FOLDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.Backup == nil {
				return unsupported("leat backup")
			}
			data, err := a.data()
			if err != nil {
				return err
			}
			if _, err := os.Lstat(args[0]); err == nil {
				return &failure{exitUsage, fmt.Errorf("%s is already there: nothing was written", args[0]), "Name a folder that does not exist yet."}
			}
			if err := a.Backup(cmd.Context(), data, args[0]); err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			a.out.Printf("wrote %s\n", args[0])
			return nil
		},
	}
	return cmd
}
