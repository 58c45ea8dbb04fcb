package install

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

var (
	logFormats = []string{"auto", "console", "json"}
	logLevels  = []string{"debug", "info", "warn", "error"}
)

// Run is leat run.
func Run(app *shell.App) *cobra.Command {
	a := &commands{app}
	var format, level string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "The server",
		Long: "Reads the sources and delivers to the subscriptions of leat.yaml until it is told to stop.\n" +
			"SIGTERM or Ctrl-C: take nothing more, finish what is under way or leave it by the deadline, remember\n" +
			"where everything stands. A second one: now. SIGHUP: read leat.yaml again and apply it.",
		Example: "  leat run\n  leat run -c /etc/leat/leat.yaml --log-format json",
		Args:    fault.Wants(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.Run == nil {
				return fault.Unsupported("leat run")
			}
			if !slices.Contains(logFormats, format) {
				return fault.Usage(cmd, "--log-format is auto, console or json%s", fault.Nearest(format, logFormats, ""))
			}
			if !slices.Contains(logLevels, level) {
				return fault.Usage(cmd, "--log-level is debug, info, warn or error%s", fault.Nearest(level, logLevels, ""))
			}
			cfg, err := a.Load(false)
			if err != nil {
				return err
			}
			if err := cfg.CheckRun(); err != nil {
				return err
			}
			a.Warn(cfg)
			o := shell.RunOptions{Config: cfg, Path: a.File(), LogFormat: format, LogLevel: level, Version: a.Version, Stdout: a.Stdout, Stderr: a.Stderr}
			o.Reload = func() (*config.Config, error) { return a.Load(false) }
			return a.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&format, "log-format", "auto", "log lines as `FORMAT` console, json, or auto: console on a terminal")
	cmd.Flags().StringVar(&level, "log-level", "info", "least `LEVEL` that is logged: debug, info, warn, error")
	return cmd
}

// Demo is leat demo.
func Demo(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o shell.DemoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work, with nothing prepared: a throw-away database and three subscribers",
		Long: "Starts a throw-away PostgreSQL, changes a filesystem's metadata in it, and delivers the changes to three\n" +
			"subscribers, one of them slow. Shows rates and lags; at the end each subscriber's copy is compared\n" +
			"with the source, row for row.",
		Example: "  leat demo\n  leat demo --seconds 20\n  leat demo --url 'postgres://me:${PGPASSWORD}@db/test'",
		Args:    fault.Wants(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case a.Demo == nil:
				return fault.Unsupported("leat demo")
			case o.Seconds < 0:
				return fault.Usage(cmd, "--seconds is a number from 0 on")
			case o.Rate < 0:
				return fault.Usage(cmd, "--rate is a number from 0 on")
			}
			if o.URL != "" {
				missing := ""
				o.URL = variable.ReplaceAllStringFunc(o.URL, func(ref string) string {
					name := variable.FindStringSubmatch(ref)[1]
					v, ok := a.Env(name)
					if !ok {
						missing = name
					}
					return v
				})
				if missing != "" {
					return fault.New(fault.WrongUsage, fmt.Errorf("--url: the variable %s is not set", missing), "")
				}
			}
			o.JSON, o.Stdout, o.Stderr, o.Terminal, o.Color = a.JSON, a.Stdout, a.Stderr, a.Out.Terminal, a.Out.Color
			return a.Demo(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Seconds, "seconds", 0, "end by itself after `N` seconds, with a summary (default: Ctrl-C ends it)")
	f.StringVar(&o.URL, "url", "", "use the database at `URL`; it gets a schema of its own")
	f.BoolVar(&o.MySQL, "mysql", false, "use MySQL, where a server is at hand")
	f.IntVar(&o.Rate, "rate", 0, "changes per second `N` (default: as the demo likes)")
	a.JSONFlag(cmd)
	return cmd
}
