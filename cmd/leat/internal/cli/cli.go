package cli

import (
	"context"
	"io"
	"sync"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/events"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/install"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/logs"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/operate"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/parks"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/replays"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/status"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/verify"
)

// What the commands need from the rest of the program.
type (
	// Deps are the parts of the program that commands use.
	Deps = shell.Deps
	// RunOptions of the server.
	RunOptions = shell.RunOptions
	// DemoOptions of the demonstration.
	DemoOptions = shell.DemoOptions
	// Found is what Deps.InitFrom saw in a database.
	Found = shell.Found
	// FoundTable is a table of it.
	FoundTable = shell.FoundTable
)

// ExitCode of a command: 0 done, 1 failed, 2 wrong usage or config, 3 could not reach the server.
func ExitCode(err error) int { return fault.ExitCode(err) }

// Report prints an error of Run for people.
func Report(w io.Writer, err error) { fault.Report(w, err) }

// Run carries out one command line, without the program's name. See [ExitCode] and [Report] for its error.
func Run(ctx context.Context, d Deps, args []string) error {
	inOrder()
	a := shell.New(d)
	root := newRoot(a)
	root.SetArgs(args)
	if err := fault.UnknownCommand(root, args); err != nil {
		return err
	}
	if err := root.ExecuteContext(ctx); err != nil {
		return err
	}
	return a.Out.Err()
}

// inOrder keeps the commands of `leat --help` in the order of groups. Cobra has a global variable for this.
var inOrder = sync.OnceFunc(func() { cobra.EnableCommandSorting = false })

func newRoot(a *shell.App) *cobra.Command {
	root := &cobra.Command{
		Use:   "leat",
		Short: "Change data capture from PostgreSQL, MySQL and MariaDB to many subscribers",
		Long: "Leat reads the changes of PostgreSQL, MySQL and MariaDB through a durable log of its own and\n" +
			"delivers each to many subscribers: none lost, in order per key, each at its own pace.",
		Example: "  leat init          write a commented leat.yaml\n" +
			"  leat check         is everything reachable, allowed and set?\n" +
			"  leat run           the server\n" +
			"  leat status        how it goes",
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate("{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}\n\n{{end}}{{.UsageString}}")
	root.SetFlagErrorFunc(fault.Flag)
	root.CompletionOptions.DisableDefaultCmd = true
	f := root.PersistentFlags()
	f.SortFlags = false
	f.StringVarP(&a.ConfigPath, "config", "c", "", "the `FILE` that describes the installation (default ./leat.yaml)")
	f.StringVar(&a.Addr, "addr", "", "`ADDRESS` of the server (default LEAT_ADDR, else listen of the file)")
	f.StringVar(&a.TokenFile, "token-file", "", "`FILE` that holds the token (default: the token in LEAT_TOKEN)")
	f.StringVar(&a.CAFile, "ca", "", "PEM `FILE` of authorities to trust besides the system's (default LEAT_CA)")
	f.BoolP("help", "h", false, "help for a command")

	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, make := range g.commands {
			cmd := make(a)
			cmd.GroupID = g.id
			prepare(cmd)
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd() // now, so that unknownCommand knows it
	man := manCommand(a)
	prepare(man)
	root.AddCommand(man)
	return root
}

// groups are the commands in the order of `leat --help`.
var groups = []struct {
	id, title string
	commands  []func(*shell.App) *cobra.Command
}{
	{"begin", "To begin:", []func(*shell.App) *cobra.Command{install.Init, install.Check, install.Demo}},
	{"run", "The server:", []func(*shell.App) *cobra.Command{install.Run, install.Plan, install.Apply}},
	{"look", "To look:", []func(*shell.App) *cobra.Command{status.Command, status.Top, events.Tail, events.Explain, parks.Parked, verify.Command, operate.Audit, logs.Command}},
	{"act", "To act:", []func(*shell.App) *cobra.Command{operate.Pause, operate.Resume, operate.Throttle, parks.Redrive, parks.Discard, replays.Replay, replays.Backfill, replays.Jobs, operate.Seek, source, operate.Ranges, install.Backup}},
	{"more", "More:", []func(*shell.App) *cobra.Command{install.Config, events.Schemas, completionCommand, versionCommand}},
}

// prepare gives a command and those below it what all of them have.
func prepare(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.DisableFlagsInUseLine = true
	for _, c := range cmd.Commands() {
		prepare(c)
	}
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "Help for a command",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fault.UnknownCommand(cmd.Root(), args); err != nil {
				return err
			}
			found, _, err := cmd.Root().Find(args)
			if err != nil {
				return fault.Usage(cmd, "%v", err)
			}
			return found.Help()
		},
	}
}

const usageTemplate = `Usage:
{{- if .Runnable}}
  {{.UseLine}}
{{- end}}
{{- if and .HasAvailableSubCommands .HasParent}}
  {{.CommandPath}} COMMAND
{{- end}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- if .HasAvailableSubCommands}}{{$cmds := .Commands}}
{{- if eq (len .Groups) 0}}

Commands:
{{- range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}
{{- else}}
{{- range $group := .Groups}}

{{.Title}}
{{- range $cmds}}{{if (and (eq .GroupID $group.ID) .IsAvailableCommand)}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}
{{- if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{- end}}
{{- if .HasAvailableInheritedFlags}}

Flags of all commands:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{- end}}
`

// source is leat source: what is done to one through the server, and to its log without.
func source(app *shell.App) *cobra.Command {
	cmd := operate.Source(app)
	cmd.AddCommand(logs.Accept(app))
	return cmd
}
