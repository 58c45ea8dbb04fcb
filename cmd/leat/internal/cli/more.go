package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
)

func versionCommand(a *shell.App) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "The version of this program",
		Example: "  leat version --json",
		Args:    fault.Wants(),
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
			if a.JSON {
				return a.Document(v)
			}
			a.Out.Printf("leat %s %s %s/%s\n", v.Version, v.Go, v.OS, v.Arch)
			return nil
		},
	}
	a.JSONFlag(cmd)
	return cmd
}

func completionCommand(a *shell.App) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Completion for a shell",
		Long:  "Prints a script that makes the shell complete commands, flags, and the names in leat.yaml.",
		Example: "  source <(leat completion bash)\n" +
			"  leat completion zsh > \"${fpath[1]}/_leat\"\n" +
			"  leat completion fish > ~/.config/fish/completions/leat.fish",
		Args:      fault.Wants("bash|zsh|fish"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(a.Out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(a.Out)
			case "fish":
				return cmd.Root().GenFishCompletion(a.Out, true)
			}
			return fault.Usage(cmd, "no completion for %s%s", args[0], fault.Nearest(args[0], shells, ""))
		},
	}
}
