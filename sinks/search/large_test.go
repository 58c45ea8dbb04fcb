package search

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// A TRUNCATE of more than one Delivery has time for goes on, and spends no attempt while it gets on.
func TestEmptyGoesOn(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	table := pipetest.FilesTable(servertest.Name())
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	var searches atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "_search") && searches.Add(1) == 2 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer server.Close()
	s := newSink(t, server.URL)
	s.page = 1
	done(t, s, 10, put(table, "1", "1", "a"), put(table, "2", "1", "b"), put(table, "3", "1", "c"))
	b := batch(20, pipetest.Change{Op: pipeline.OpTruncate, Table: table})
	defer b.Release()
	var de *pipeline.DeliveryError
	if _, err := deliver(t, s, b); !errors.As(err, &de) || de.Class != pipeline.Unavailable || !strings.Contains(de.Reason, "1 documents are removed") {
		t.Fatal(err)
	}
	if out, err := deliver(t, s, b); err != nil || len(out) > 0 {
		t.Fatal(out, err)
	}
	if all := documents(t, base, table.Name); len(all) > 0 {
		t.Fatal(all)
	}
}

// An answer that is longer than what is read makes Deliveries smaller: it is no garbage that is asked for again.
func TestAnswerTooLong(t *testing.T) {
	t.Parallel()
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range mostAnswer>>20 + 1 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	b := batch(1, put(pipetest.FilesTable("files"), "1", "1", "a"))
	defer b.Release()
	var de *pipeline.DeliveryError
	if _, err := deliver(t, newSink(t, server.URL), b); !errors.As(err, &de) || de.Class != pipeline.TooLarge {
		t.Fatal(err)
	}
}

// What is told of documents has none of their values.
func TestReasonsWithoutValues(t *testing.T) {
	for reason, want := range map[string]string{
		"failed to parse field [n] of type [long] in document with id 'x'. Preview of field's value: 'secret'":            "failed to parse field [n] of type [long]",
		"failed to parse field [n]. Preview of field's value: 'secret'":                                                   "failed to parse field [n]",
		`Document contains at least one immense term in field="n". The prefix of the first immense term is: '[115, 101]'`: `Document contains at least one immense term in field="n"`,
	} {
		c := cause{Type: "mapper_parsing_exception", Reason: reason, CausedBy: &cause{Type: "number_format_exception", Reason: `For input string: "secret"`}}
		if have := c.document(); have != "mapper_parsing_exception: "+want+" (number_format_exception)" {
			t.Error(have)
		}
	}
}

// Tables whose names differ by capitals alone would have one index: the second one waits and says so.
func TestOneIndexOneTable(t *testing.T) {
	t.Parallel()
	base := servertest.OpenSearch(t).URL
	table := pipetest.FilesTable(servertest.Name())
	s := newSink(t, base)
	done(t, s, 10, put(table, "1", "1", "a"))
	b := batch(11, put(pipetest.FilesTable(strings.ToUpper(table.Name)), "1", "1", "b"))
	defer b.Release()
	var de *pipeline.DeliveryError
	if _, err := deliver(t, s, b); !errors.As(err, &de) || de.Class != pipeline.Unavailable || !strings.Contains(de.Reason, "one index") {
		t.Fatal(err)
	}
	done(t, s, 12, put(table, "1", "1", "c"))
}

// Close ends what is being asked, and nothing is asked later: a connection would stay open behind it.
func TestClosedAsksNothing(t *testing.T) {
	t.Parallel()
	came := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	s := newSink(t, server.URL)
	done := make(chan error, 1)
	go func() { _, err := s.Pending(t.Context()); done <- err }()
	<-came
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("what was being asked did not end")
	}
	if _, err := s.Pending(t.Context()); !errors.Is(err, pipeline.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if len(came) != 0 {
		t.Error("asked after Close")
	}
}
