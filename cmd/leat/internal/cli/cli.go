package cli

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline"
)

// Deps are what the commands need from the rest of the program. A nil func makes its command refuse
// ("not supported by this version").
type Deps struct {
	// Version of the program.
	Version string
	// Stdin answers prompts, only when it is a terminal. Defaults: those of the process.
	Stdin          *os.File
	Stdout, Stderr io.Writer
	// Env looks up variables of the environment. Default: os.LookupEnv.
	Env func(string) (string, bool)
	// Now is the clock of what is printed relative to now. Default: time.Now.
	Now func() time.Time

	// Run is the server, until ctx ends and everything is stopped.
	Run func(ctx context.Context, o RunOptions) error
	// Check looks at every source and sink of a config.
	Check func(ctx context.Context, cfg *config.Config) []pipeline.Finding
	// InitFrom looks into the database at url, which has its password.
	InitFrom func(ctx context.Context, url string) (Found, error)
	// Demo runs the demonstration.
	Demo func(ctx context.Context, o DemoOptions) error
	// LogDir is the folder of a source's log in a data folder; with an empty source the folder of all of them.
	LogDir func(data, source string) string
	// Backup writes a copy of the data folder's state and log to a new folder.
	Backup func(ctx context.Context, data, to string) error
}

// RunOptions of the server.
type RunOptions struct {
	// Config, expanded and fit to run; Path is the file it came from, to read it again.
	Config *config.Config
	Path   string
	// Reload reads Path again, for SIGHUP.
	Reload func() (*config.Config, error)
	// LogFormat is auto, console or json, LogLevel debug, info, warn or error.
	LogFormat, LogLevel string
	Version             string
	Stdout, Stderr      io.Writer
}

// DemoOptions of the demonstration. Zero: as the demo likes.
type DemoOptions struct {
	// Seconds until it ends by itself; 0: when ctx ends.
	Seconds int
	// URL of a database of the user's own; MySQL: use a MySQL server where one is at hand.
	URL   string
	MySQL bool
	// Rate of changes per second.
	Rate int
	// JSON: the summary as one document on Stdout, nothing else there.
	JSON           bool
	Stdout, Stderr io.Writer
	// Terminal: somebody looks at Stdout; Color: and sees colours.
	Terminal, Color bool
}

// Found is what Deps.InitFrom saw in a database.
type Found struct {
	// Server is what answered: "PostgreSQL 18.1".
	Server string
	Tables []FoundTable
	// Findings are what must or should be changed there, each with its cure.
	Findings []pipeline.Finding
}

// FoundTable is a table that can be read.
type FoundTable struct {
	// Name as in `tables:` of leat.yaml: schema.table or database.table.
	Name string `json:"name"`
	// Key is the routing key that the table would have; empty: the whole table is one key.
	Key []string `json:"key"`
	// Rows, about; negative: not known.
	Rows int64 `json:"rows"`
}

// app is one run of the command line.
type app struct {
	Deps
	out, err *screen.Screen

	configPath, addr, tokenFile, caFile string
	asJSON                              bool
}

// Run carries out one command line, without the program's name. See [ExitCode] and [Report] for its error.
func Run(ctx context.Context, d Deps, args []string) error {
	a := newApp(d)
	root := a.root()
	root.SetArgs(args)
	if err := unknownCommand(root, args); err != nil {
		return err
	}
	if err := root.ExecuteContext(ctx); err != nil {
		return err
	}
	return a.out.Err()
}

// inOrder keeps the commands of `leat --help` in the order of groups. Cobra has a global variable for this.
var inOrder = sync.OnceFunc(func() { cobra.EnableCommandSorting = false })

func newApp(d Deps) *app {
	inOrder()
	if d.Stdin == nil {
		d.Stdin = os.Stdin
	}
	if d.Stdout == nil {
		d.Stdout = os.Stdout
	}
	if d.Stderr == nil {
		d.Stderr = os.Stderr
	}
	if d.Env == nil {
		d.Env = os.LookupEnv
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	return &app{Deps: d, out: screen.New(d.Stdout, d.Env), err: screen.New(d.Stderr, d.Env)}
}

func (a *app) root() *cobra.Command {
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
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate("{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}\n\n{{end}}{{.UsageString}}")
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true
	f := root.PersistentFlags()
	f.SortFlags = false
	f.StringVarP(&a.configPath, "config", "c", "", "the `FILE` that describes the installation (default ./leat.yaml)")
	f.StringVar(&a.addr, "addr", "", "`ADDRESS` of the server (default LEAT_ADDR, else listen of the file)")
	f.StringVar(&a.tokenFile, "token-file", "", "`FILE` that holds the token (default: the token in LEAT_TOKEN)")
	f.StringVar(&a.caFile, "ca", "", "PEM `FILE` of authorities to trust besides the system's (default LEAT_CA)")
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
	for _, l := range later {
		root.AddCommand(l.command())
	}
	root.SetHelpCommand(helpCommand())
	root.InitDefaultHelpCmd() // now, so that unknownCommand knows it
	man := a.manCommand()
	prepare(man)
	root.AddCommand(man)
	return root
}

// groups are the commands in the order of `leat --help`.
var groups = []struct {
	id, title string
	commands  []func(*app) *cobra.Command
}{
	{"begin", "To begin:", []func(*app) *cobra.Command{(*app).initCommand, (*app).checkCommand, (*app).demoCommand}},
	{"run", "The server:", []func(*app) *cobra.Command{(*app).runCommand, (*app).planCommand, (*app).applyCommand}},
	{"look", "To look:", []func(*app) *cobra.Command{(*app).statusCommand, (*app).tailCommand, (*app).explainCommand, (*app).parkedCommand, (*app).auditCommand, (*app).logCommand}},
	{"act", "To act:", []func(*app) *cobra.Command{(*app).pauseCommand, (*app).resumeCommand, (*app).throttleCommand, (*app).redriveCommand, (*app).discardCommand, (*app).seekCommand, (*app).sourceCommand, (*app).rangesCommand, (*app).backupCommand}},
	{"more", "More:", []func(*app) *cobra.Command{(*app).configCommand, (*app).completionCommand, (*app).versionCommand}},
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
			if err := unknownCommand(cmd.Root(), args); err != nil {
				return err
			}
			found, _, err := cmd.Root().Find(args)
			if err != nil {
				return usage(cmd, "%v", err)
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
