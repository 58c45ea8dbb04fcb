// Package shell is what every command stands in: the parts of the program that it may use, the flags of all
// commands, the screens, leat.yaml, the server it talks to, and the question before what cannot be undone.
package shell

import (
	"context"
	"io"
	"os"
	"time"

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

// App is one run of the command line.
type App struct {
	Deps
	Out, Err *screen.Screen

	// What the flags of all commands say; empty: not given.
	ConfigPath, Addr, TokenFile, CAFile string
	// JSON: --json was given.
	JSON bool
}

// New fills in defaults.
func New(d Deps) *App {
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
	return &App{Deps: d, Out: screen.New(d.Stdout, d.Env), Err: screen.New(d.Stderr, d.Env)}
}
