package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

const defaultFile = "leat.yaml"

func (a *app) file() string {
	if a.configPath != "" {
		return a.configPath
	}
	return defaultFile
}

// load reads leat.yaml; names leaves ${NAME} and file: as they are, as what is sent to a server must be.
func (a *app) load(names bool) (*config.Config, error) {
	cfg, err := config.Load(a.file(), config.Options{Env: a.Env, NoExpand: names})
	var list config.Errors
	switch {
	case err == nil || errors.As(err, &list):
		return cfg, err
	case errors.Is(err, fs.ErrNotExist):
		return nil, &failure{exitUsage, fmt.Errorf("there is no file %s: %w", a.file(), fs.ErrNotExist), "Write one with leat init, or name it with -c FILE."}
	}
	return nil, &failure{code: exitUsage, err: err}
}

// warn prints the findings of a file that do not make it wrong.
func (a *app) warn(cfg *config.Config) {
	for _, w := range cfg.Warnings() {
		a.err.Printf("%s\n", lines(w.Error()))
	}
}

// data is the data folder of the file.
func (a *app) data() (string, error) {
	cfg, err := a.load(true)
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

// names completes names of the file: of sources, of subscriptions, or of both.
func (a *app) names(sources, subscriptions bool) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		cfg, err := a.load(true)
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
