package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

// DefaultFile is read where none is named.
const DefaultFile = "leat.yaml"

// File is the path of leat.yaml.
func (a *App) File() string {
	if a.ConfigPath != "" {
		return a.ConfigPath
	}
	return DefaultFile
}

// Load reads leat.yaml; names leaves ${NAME} and file: as they are, as what is sent to a server must be.
func (a *App) Load(names bool) (*config.Config, error) {
	cfg, err := config.Load(a.File(), config.Options{Env: a.Env, NoExpand: names})
	var list config.Errors
	switch {
	case err == nil || errors.As(err, &list):
		return cfg, err
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.WrongUsage, fmt.Errorf("there is no file %s: %w", a.File(), fs.ErrNotExist), "Write one with leat init, or name it with -c FILE.")
	}
	return nil, fault.New(fault.WrongUsage, err, "")
}

// Warn prints the findings of a file that do not make it wrong.
func (a *App) Warn(cfg *config.Config) {
	for _, w := range cfg.Warnings() {
		a.Err.Printf("%s\n", screen.CleanLines(w.Error()))
	}
}

// Data is the data folder of the file.
func (a *App) Data() (string, error) {
	cfg, err := a.Load(true)
	if err != nil {
		return "", err
	}
	if cfg.Open("data") {
		if cfg, err = cfg.Expand(config.Options{Env: a.Env}); err != nil {
			return "", err
		}
	}
	if cfg.Data == "" {
		return "", cfg.Errorf("data", "data is missing: the folder of the log")
	}
	dir := cfg.Data
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(cfg.Dir(), dir)
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no data folder %s yet: leat run makes it", dir)
	} else if err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	return dir, nil
}

// Names completes names of the file: of sources, of subscriptions, or of both.
func (a *App) Names(sources, subscriptions bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		cfg, err := a.Load(true)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []cobra.Completion
		if sources {
			for n := range cfg.Sources {
				out = append(out, n)
			}
		}
		if subscriptions {
			for n := range cfg.Subscriptions {
				out = append(out, n)
			}
		}
		slices.Sort(out)
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// Ago reads a moment: RFC 3339, or how long ago.
func (a *App) Ago(text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return time.Time{}, err
	}
	return a.Now().Add(-d), nil
}

// PublicURL is what links in events begin with, where the file can be read.
func (a *App) PublicURL() string {
	cfg, err := a.Load(false)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(cfg.PublicURL, "/")
}
