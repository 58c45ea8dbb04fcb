package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// clustered asks a search server; what it answers goes into into.
func clustered(t *testing.T, method, url string, into any) int {
	t.Helper()
	body := ""
	if strings.HasSuffix(url, "/_search") {
		body = `{"size":1000}`
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if into != nil {
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode
}

// names by id, as an index has them.
func names(t *testing.T, url string) map[string]string {
	t.Helper()
	var found struct {
		Hits struct {
			Hits []struct {
				ID     string                `json:"_id"`
				Source struct{ Name string } `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	clustered(t, http.MethodPost, url+"/_refresh", nil)
	clustered(t, http.MethodPost, url+"/_search", &found)
	all := map[string]string{}
	for _, h := range found.Hits.Hits {
		all[h.ID] = h.Source.Name
	}
	return all
}

// An index is made anew while rows change and over a restart; those who search find the old one until the new one is
// whole.
func TestSearchRebuild(t *testing.T) {
	t.Parallel()
	db, base, alias := newPG(t), servertest.OpenSearch(t).URL, servertest.Name()
	yaml := db.yaml(fmt.Sprintf("a: {source: files, deliver: {search: {url: '%s', index: '%s-{table}', replicas: 0}}}\n  b: {source: files, deliver: {pull: {}}}", base, alias))
	dir := t.TempDir()
	in := install(t, dir, yaml)
	in.streaming(t, "files")
	url := base + "/" + alias + "-files"
	rebuild := func(sub string, dry bool) (*leatv1.BackfillResponse, error) {
		r, err := in.admin.Backfill(t.Context(), connect.NewRequest(&leatv1.BackfillRequest{Subscription: sub, Rebuild: true, DryRun: dry}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}
	if _, err := rebuild("b", false); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("of a pull subscription: %v", err)
	}
	until(t, "the sink", func() bool { _, err := rebuild("a", true); return err == nil })
	if _, err := rebuild("a", false); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("of what is not there: %v", err)
	}
	db.exec(t, "INSERT INTO files SELECT i, 'first ' || i, 1 FROM generate_series(1, 300) i")
	until(t, "the documents", func() bool { return len(names(t, url)) == 300 })
	// What nobody deletes in the table is in the index alone: the new one has not got it.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url+"/_doc/999", strings.NewReader(`{"name":"stray"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, err := rebuild("a", false); err != nil {
		t.Fatal(err)
	}
	db.exec(t, "UPDATE files SET name = 'second' WHERE id = 7", "DELETE FROM files WHERE id = 8")
	if err := in.stop(); err != nil {
		t.Fatal(err)
	}
	in = install(t, dir, yaml)
	until(t, "the new index", func() bool {
		return clustered(t, http.MethodGet, base+"/"+alias+"-files-000001", nil) == http.StatusNotFound
	})
	until(t, "what changed", func() bool {
		all := names(t, url)
		_, deleted := all["8"]
		_, stray := all["999"]
		return len(all) == 299 && all["7"] == "second" && !deleted && !stray
	})
	if n := clustered(t, http.MethodGet, base+"/"+alias+"-files-000002", nil); n != http.StatusOK {
		t.Errorf("the new index: %d", n)
	}
	if n := clustered(t, http.MethodGet, base+"/_alias/"+alias+"-files-next", nil); n != http.StatusNotFound {
		t.Errorf("the alias of what is made: %d", n)
	}
	db.exec(t, "INSERT INTO files VALUES (500, 'after', 1)")
	until(t, "what comes after", func() bool { return names(t, url)["500"] == "after" })
}
