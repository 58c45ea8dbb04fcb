package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
)

// answers is a registry that says what it is told to; the client is closed when t ends.
func answers(t *testing.T, f http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(f)
	c, err := NewClient(ClientOptions{URL: s.URL, User: "u", Password: "geheim"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c
}

// While a registry is down, who asks for versions gets those of the last time, and an id that is known; no more.
func TestClientGoesOn(t *testing.T) {
	e := open(t, &shelf{}, compat.Backward)
	if _, err := e.Register(t.Context(), "a", shape.Avro, one); err != nil {
		t.Fatal(err)
	}
	var down atomic.Bool
	var asked atomic.Int32
	c := answers(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1); down.Load() {
			panic(http.ErrAbortHandler)
		}
		e.Handler("").ServeHTTP(w, r)
	})
	ask := func(want ...string) {
		t.Helper()
		if got, err := c.Versions(t.Context(), "a", shape.Avro); err != nil || !slices.Equal(got, want) {
			t.Fatal(got, err)
		}
	}
	ask(one)
	if id, err := c.Register(t.Context(), "a", shape.Avro, one); err != nil || id != 1 {
		t.Fatal(id, err)
	}
	if _, err := e.Register(t.Context(), "a", shape.Avro, two); err != nil {
		t.Fatal(err)
	}
	asked.Store(0)
	if ask(one, two); asked.Load() != 2 { // the list, and what is new of it
		t.Errorf("asked %d times", asked.Load())
	}
	down.Store(true)
	ask(one, two)
	if id, err := c.Register(t.Context(), "a", shape.Avro, one); err != nil || id != 1 {
		t.Fatal(id, err)
	}
	if _, err := c.Register(t.Context(), "a", shape.Avro, two); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Error(err)
	}
	if _, err := c.Versions(t.Context(), "b", shape.Avro); err == nil {
		t.Error("versions of a subject that was never listed")
	}
}

// Avro has no schemaType: Apicurio refuses an empty one.
func TestClientAsks(t *testing.T) {
	var bodies sync.Map
	c := answers(t, func(w http.ResponseWriter, r *http.Request) {
		p, _ := io.ReadAll(r.Body)
		bodies.Store(r.URL.Path, string(p))
		_, _ = io.WriteString(w, `{"id":7}`)
	})
	for subject, f := range map[string]shape.Format{"a": shape.Avro, "p": shape.Protobuf} {
		if _, err := c.Register(t.Context(), subject, f, one); err != nil {
			t.Fatal(err)
		}
	}
	quoted, _ := json.Marshal(one)
	if got, _ := bodies.Load("/subjects/a"); got != fmt.Sprintf(`{"schema":%s}`, quoted) {
		t.Error(got)
	}
	if got, _ := bodies.Load("/subjects/p"); got != fmt.Sprintf(`{"schemaType":"PROTOBUF","schema":%s}`, quoted) {
		t.Error(got)
	}
}

// What a registry says no by is told with its cure; a table may have thousands of columns.
func TestClientIsTold(t *testing.T) {
	type reply struct {
		status           int
		header, body, is string
	}
	var now atomic.Pointer[reply]
	c := answers(t, func(w http.ResponseWriter, _ *http.Request) {
		x := now.Load()
		if x.header != "" {
			w.Header().Set("Location", x.header)
		}
		w.WriteHeader(x.status)
		_, _ = io.WriteString(w, x.body)
	})
	for _, x := range []reply{
		{404, "", `{"error_code":404,"message":"HTTP 404 Not Found"}`, "knows no such path: check registry.url"},
		{404, "", "<html>", "knows no such path: check registry.url"},
		{404, "", `{"error_code":40401,"message":"Subject not found."}`, "Subject not found."},
		{302, "http://127.0.0.1:1/", "", "redirects are not followed"},
		{307, "http://127.0.0.1:1/", "", "redirects are not followed"},
		{409, "", `{"error_code":409,"message":"reader type STRING"}`, "incompatible with the subject's: reader type STRING"},
		{422, "", `{"error_code":42201,"message":"Invalid schema"}`, "answered 422: Invalid schema"},
		{403, "", "", "check user and password, or token"},
		{500, "", `{"error_code":50001,"message":"boom"}`, "answered 500: boom"},
	} {
		now.Store(&x)
		_, err := c.Register(t.Context(), "a", shape.Avro, one)
		if err == nil || !strings.Contains(err.Error(), x.is) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%d %s: %v", x.status, x.body, err)
		}
	}
	now.Store(&reply{status: 200, body: `{"id":3,"schema":"` + strings.Repeat("x", 4<<20) + `"}`})
	if id, err := c.Register(t.Context(), "a", shape.Avro, one); id != 3 || err != nil {
		t.Error(id, err)
	}
}
