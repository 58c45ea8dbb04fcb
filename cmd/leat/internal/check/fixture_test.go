package check

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

// newPG is a database that was made by statements.
func newPG(t *testing.T, statements ...string) *servertest.Database {
	t.Helper()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn, err := pgx.Connect(t.Context(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) }) // the server drops it otherwise
	for _, q := range append([]string{"CREATE TABLE files (id bigint PRIMARY KEY, name text, size bigint)"}, statements...) {
		if _, err := conn.Exec(t.Context(), q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	return db
}
