package reshape

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sources/postgres"
)

type pgConn struct{ c *pgx.Conn }

func (p pgConn) do(s string) error {
	_, err := p.c.Exec(context.Background(), s, pgx.QueryExecModeSimpleProtocol)
	return err
}

func (p pgConn) rows(query string) (columns []string, rows [][]string, err error) {
	results, err := p.c.PgConn().Exec(context.Background(), query).ReadAll()
	if err != nil {
		return nil, nil, err
	}
	for _, f := range results[0].FieldDescriptions {
		columns = append(columns, f.Name)
	}
	for _, r := range results[0].Rows {
		var cells []string
		for _, v := range r {
			if v == nil {
				cells = append(cells, null)
			} else {
				cells = append(cells, string(v))
			}
		}
		rows = append(rows, cells)
	}
	return columns, rows, nil
}

func (pgConn) prefix() string { return "public" }
func (pgConn) told() bool     { return false }

type pgDialect struct{}

func (pgDialect) transactional() bool { return true }

func (pgDialect) typeOf(_ *history, kind string) string {
	return map[string]string{"int": "int", "bigint": "bigint", "short": "varchar(20)", "long": "text", "decimal": "numeric(10,2)", "date": "date", "enum": "level"}[kind]
}

func (pgDialect) insert(t, columns, values string) string {
	return fmt.Sprintf("insert into %s (%s) values (%s) on conflict do nothing", t, columns, values)
}

func (d pgDialect) retype(h *history, t *table, c *column, kind string) []string {
	c.kind, c.fill = kind, false
	return []string{fmt.Sprintf("alter table %[1]s alter column %[2]s drop default, alter column %[2]s drop not null, alter column %[2]s type %[3]s using %[2]s::%[3]s", t.name, c.name, d.typeOf(h, kind))}
}

func (pgDialect) own() map[string]func(h *history, t *table) []string {
	return map[string]func(h *history, t *table) []string{
		"label": func(h *history, _ *table) []string {
			label := h.fresh("l")
			h.labels = append(h.labels, label)
			return []string{fmt.Sprintf("alter type level add value '%s'", label)}
		},
		"names": func(h *history, t *table) []string { // two columns change their names
			if len(t.columns) < 2 {
				return nil
			}
			a, b := &t.columns[0], &t.columns[1]
			a.name, b.name = b.name, a.name
			between := h.fresh("c")
			return []string{fmt.Sprintf("do $$ begin alter table %[1]s rename column %[2]s to %[4]s; alter table %[1]s rename column %[3]s to %[2]s; alter table %[1]s rename column %[4]s to %[3]s; end $$",
				t.name, b.name, a.name, between)}
		},
		"undone": func(h *history, t *table) []string { // what a savepoint takes back did not happen
			return []string{"begin", "savepoint s", "alter table " + t.name + " add column undone int default 4", h.add(t, 100+h.IntN(9)), "rollback to s", h.write(t), "commit"}
		},
		"full": func(h *history, t *table) []string {
			return []string{"alter table " + t.name + " replica identity full"}
		},
	}
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{Version: 18})
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	run(t, pgConn{conn}, pgDialect{}, func(known func() []*schemas.Table) pipeline.Source {
		s, err := postgres.New(postgres.Config{Name: "src", URL: db.URL, Slot: db.Name, Create: true, Tables: []string{"public.*"},
			StatusInterval: 100 * time.Millisecond, CatalogInterval: 100 * time.Millisecond, Known: known})
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
