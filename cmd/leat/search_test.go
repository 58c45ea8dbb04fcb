package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// The index is as the table is, however often Leat is killed while rows change.
func TestKilledIntoSearch(t *testing.T) {
	t.Parallel()
	db, base, alias := servertest.Postgres(t, servers.PostgresOptions{}), servertest.OpenSearch(t).URL, servertest.Name()
	w := &workload{driver: "postgres", dsn: db.URL, table: "public.files", upsert: "INSERT INTO files VALUES ($1, 1, 'new') ON CONFLICT (id) DO UPDATE SET n = files.n + 1, path = 'changed'",
		remove: "DELETE FROM files WHERE id = $1"}
	var err error
	if w.db, err = sql.Open(w.driver, w.dsn); err != nil {
		t.Fatal(err)
	}
	defer w.db.Close()
	if _, err := w.db.Exec("CREATE TABLE files (id bigint PRIMARY KEY, n bigint, path text)"); err != nil {
		t.Fatal(err)
	}
	bin, dir := leatBinary(t), t.TempDir()
	yaml := fmt.Sprintf("listen: %s\ndata: ./data\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\nsubscriptions:\n  index: {source: files, deliver: {search: {url: '%s', index: '%s-{table}', replicas: 0}}}\n",
		freeAddr(t), db.URL, db.Name, base, alias)
	if err := os.WriteFile(filepath.Join(dir, "leat.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startLeat(t, bin, dir)
	p.ready()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	written := make(chan error, 1)
	go func() { written <- w.run(ctx, rand.New(rand.NewPCG(1, 2)), 100) }()
	for n := range 3 {
		seen := len(searched(t, base, alias+"-files"))
		until(t, p, "documents", func() bool { return len(searched(t, base, alias+"-files")) > min(seen, 50) })
		p.kill()
		t.Logf("killed %d times", n+1)
		p = startLeat(t, bin, dir)
		p.ready()
	}
	stop()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if _, err := w.db.Exec("DELETE FROM files WHERE id < 20; UPDATE files SET n = n + 1, path = 'changed'"); err != nil {
		t.Fatal(err)
	}
	want := map[int64]int64{}
	rows, err := w.db.Query("SELECT id, n FROM files")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, n int64
		if err := rows.Scan(&id, &n); err != nil {
			t.Fatal(err)
		}
		want[id] = n
	}
	until(t, p, "the index to be equal", func() bool { return maps.Equal(searched(t, base, alias+"-files"), want) })
	searchedByOthers(t, base, alias+"-files", want)
}

// searchedByOthers reads the index with OpenSearch's own client.
func searchedByOthers(t *testing.T, base, index string, want map[int64]int64) {
	t.Helper()
	python := withPython(t)
	if python == "" {
		return
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/search.py", base, index)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	var got struct {
		Rows  map[int64]int64
		Types map[string]string
		Found int
	}
	if err == nil {
		err = json.Unmarshal(out, &got)
	}
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, said.String())
	}
	if !maps.Equal(got.Rows, want) {
		t.Errorf("opensearch-py reads %d rows, want %d", len(got.Rows), len(want))
	}
	types := map[string]string{"id": "long", "n": "long", "path": "text", "path.keyword": "keyword", "leat_offset": "long"}
	for field, kind := range types {
		if got.Types[field] != kind {
			t.Errorf("the field %s is %q, want %s: %v", field, got.Types[field], kind, got.Types)
		}
	}
	if got.Found == 0 {
		t.Error("a search by words finds nothing")
	}
}

// withPython is an interpreter with the clients of others; empty where there is none.
func withPython(t *testing.T) string {
	t.Helper()
	python, err := servers.Python(t.Context(), func(s string) { t.Log(s) }, filepath.Join("..", "..", "clients", "python", "tests", "requirements.txt"))
	if errors.Is(err, servers.ErrNoPython) {
		t.Logf("NOT RUN: %v, so what others read was not tried here", err)
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return python
}

// searched is n by id, as those who search an index see it; none when there is no index yet.
func searched(t *testing.T, base, index string) map[int64]int64 {
	t.Helper()
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string            `json:"_id"`
				Source struct{ N int64 } `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	for _, path := range []string{"/_refresh", "/_search"} {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/"+index+path, strings.NewReader(map[bool]string{true: `{"size":10000}`}[path == "/_search"]))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil {
			err = json.Unmarshal(text, &found)
		}
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	all := map[int64]int64{}
	for _, h := range found.Hits.Hits {
		id, err := strconv.ParseInt(h.ID, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		all[id] = h.Source.N
	}
	return all
}
