package check

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/mysql"
	"github.com/leat-cdc/leat/sources/postgres"
)

// Table that a database has.
type Table struct {
	// Name is schema.table or database.table as a subject has it: to paste into `tables:` and `keys:`.
	Name string
	// Key is the routing key that it would have; empty: the whole table is one key.
	Key []string
}

// initSource is the name that the file of `leat init` gives its source: findings and cures name its slot.
const initSource = "main"

// Look is what `leat init --from` sees in a database.
func Look(ctx context.Context, raw string) (server string, tables []Table, found []pipeline.Finding, err error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", nil, nil, errors.New("the URL cannot be parsed: want postgres://USER:PASSWORD@HOST:PORT/DATABASE or mysql://USER:PASSWORD@HOST:PORT/")
	}
	switch u.Scheme {
	case "postgres", "postgresql":
		return lookPostgres(ctx, raw)
	case "mysql", "mariadb":
		return lookMySQL(ctx, raw)
	}
	return "", nil, nil, fmt.Errorf("a URL that begins with %q names no database that Leat reads: postgres:// or mysql://", u.Scheme+"://")
}

func lookPostgres(ctx context.Context, raw string) (string, []Table, []pipeline.Finding, error) {
	src, err := postgres.New(postgres.Config{Name: initSource, URL: raw, Create: true})
	if err != nil {
		return "", nil, nil, err
	}
	infos, err := src.Tables(ctx)
	if err != nil {
		return "", nil, nil, err
	}
	var all []Table
	for _, t := range infos {
		if t.Problem == "" {
			all = append(all, Table{schemas.Subject(t.Schema, t.Name), t.Key})
		}
	}
	version, err := src.Server(ctx)
	return version, all, src.Check(ctx), err
}

func lookMySQL(ctx context.Context, raw string) (string, []Table, []pipeline.Finding, error) {
	src, err := mysql.New(mysql.Config{Name: initSource, URL: raw})
	if err != nil {
		return "", nil, nil, err
	}
	infos, err := src.Tables(ctx)
	if err != nil {
		return "", nil, nil, err
	}
	var all []Table
	for _, t := range infos {
		known := Table{Name: schemas.Subject(t.Schema, t.Name)}
		for _, i := range t.Identity {
			known.Key = append(known.Key, t.Columns[i].Name)
		}
		all = append(all, known)
	}
	version, err := src.Server(ctx)
	return version, all, src.Check(ctx), err
}
