package main

import (
	"context"

	"github.com/leat-cdc/leat/cmd/leat/internal/app"
	"github.com/leat-cdc/leat/cmd/leat/internal/check"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli"
	"github.com/leat-cdc/leat/cmd/leat/internal/demo"
)

// deps are what the commands are made of.
func deps() cli.Deps {
	return cli.Deps{
		Version: version,
		Run: func(ctx context.Context, o cli.RunOptions) error {
			ctx, stop := demo.Attached(ctx)
			defer stop()
			return app.Run(ctx, app.Options{Config: o.Config, Reload: o.Reload, Version: o.Version, Stdout: o.Stdout, Stderr: o.Stderr,
				LogFormat: o.LogFormat, LogLevel: o.LogLevel})
		},
		Check:    check.Config,
		InitFrom: look,
		Demo:     demo.Run,
		LogDir:   app.LogDir,
		Backup:   app.Backup,
	}
}

func look(ctx context.Context, url string) (cli.Found, error) {
	server, tables, findings, err := check.Look(ctx, url)
	found := cli.Found{Server: server, Findings: findings}
	for _, t := range tables {
		found.Tables = append(found.Tables, cli.FoundTable{Name: t.Name, Key: t.Key, Rows: -1})
	}
	return found, err
}
