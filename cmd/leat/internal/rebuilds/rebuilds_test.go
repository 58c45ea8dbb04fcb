package rebuilds

import (
	"context"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/sinks/encode"
	"github.com/leat-cdc/leat/sinks/search"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

func ask(t *testing.T, method, url, body string) int {
	t.Helper()
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
	resp.Body.Close()
	return resp.StatusCode
}

// A new index takes the old one's place when its rows are delivered, and not before; where they are not all there it
// goes; of a job that is not ours it is left alone.
func TestRebuildsEnd(t *testing.T) {
	base, name := servertest.OpenSearch(t).URL, servertest.Name()
	sink, err := search.New(search.Options{URL: base, Index: name + "-{table}", Encoding: encode.Options{Source: "files", Form: pipetest.PGForm}})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	indices := map[string]string{} // new index by job
	for _, job := range []string{"good", "faulty", "foreign"} {
		alias := name + "-" + job
		if status := ask(t, "PUT", base+"/"+alias+"-000001", `{"aliases":{"`+alias+`":{}},"settings":{"index.number_of_replicas":0}}`); status != 200 {
			t.Fatal(status)
		}
		r, err := sink.Begin(t.Context(), pipetest.FilesTable(job))
		if err != nil {
			t.Fatal(err)
		}
		if err := sink.Name(t.Context(), r, job); err != nil {
			t.Fatal(err)
		}
		indices[job] = r.New
	}
	var mu sync.Mutex
	low, asked := pipeline.Offset(5), 0
	ended := make(chan string, 10)
	w := New(Options{
		Job: func(_ context.Context, id string) (Job, error) {
			return Job{Known: id != "foreign", Ended: true, Fault: func(string) string { return strings.TrimPrefix(id, "good") }}, nil
		},
		End: func(string) (pipeline.Offset, error) { return 10, nil },
		Low: func(string) (pipeline.Offset, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return low, nil
		},
		Ended: func(_ string, r search.Rebuild, err error) {
			text := r.Alias + " " + r.Job
			if err != nil {
				text += " " + err.Error()
			}
			ended <- text
		}})
	defer w.Close()
	w.Add("a", sink)
	wait := func() string {
		t.Helper()
		select {
		case text := <-ended:
			return text
		case <-time.After(time.Minute):
			t.Fatal("nothing ended")
			return ""
		}
	}
	if text := wait(); !strings.Contains(text, "-faulty faulty the rows of job faulty are not all there") {
		t.Fatal(text)
	}
	if ask(t, "GET", base+"/"+indices["faulty"], "") != 404 || ask(t, "GET", base+"/"+name+"-faulty", "") != 200 {
		t.Error("what is not whole took the place, or both are gone")
	}
	for deadline := time.Now().Add(time.Minute); ; {
		mu.Lock()
		n := asked
		mu.Unlock()
		if n >= 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody looks again")
		}
		<-time.After(10 * time.Millisecond)
	}
	if ask(t, "GET", base+"/"+name+"-good-000001", "") != 200 {
		t.Error("the index moved before its rows were delivered")
	}
	mu.Lock()
	low = 10
	mu.Unlock()
	if text := wait(); text != name+"-good good" {
		t.Fatal(text)
	}
	if ask(t, "GET", base+"/"+name+"-good-000001", "") != 404 || ask(t, "GET", base+"/"+name+"-good-000002", "") != 200 || ask(t, "GET", base+"/"+indices["foreign"], "") != 200 {
		t.Error("the wrong indices are there")
	}
}
