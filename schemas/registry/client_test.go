package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
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
	asked := 0
	c := answers(t, func(w http.ResponseWriter, r *http.Request) {
		if asked++; down.Load() {
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
	asked = 0
	if ask(one, two); asked != 2 { // the list, and what is new of it
		t.Errorf("asked %d times", asked)
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
	bodies := map[string]string{}
	c := answers(t, func(w http.ResponseWriter, r *http.Request) {
		p, _ := io.ReadAll(r.Body)
		bodies[r.URL.Path] = string(p)
		_, _ = io.WriteString(w, `{"id":7}`)
	})
	for subject, f := range map[string]shape.Format{"a": shape.Avro, "p": shape.Protobuf} {
		if _, err := c.Register(t.Context(), subject, f, one); err != nil {
			t.Fatal(err)
		}
	}
	quoted, _ := json.Marshal(one)
	if got := bodies["/subjects/a"]; got != fmt.Sprintf(`{"schema":%s}`, quoted) {
		t.Error(got)
	}
	if got := bodies["/subjects/p"]; got != fmt.Sprintf(`{"schemaType":"PROTOBUF","schema":%s}`, quoted) {
		t.Error(got)
	}
}

// What a registry says no by is told with its cure; a table may have thousands of columns.
func TestClientIsTold(t *testing.T) {
	status, header, body := 0, "", ""
	c := answers(t, func(w http.ResponseWriter, _ *http.Request) {
		if header != "" {
			w.Header().Set("Location", header)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	for _, x := range []struct {
		status           int
		header, body, is string
	}{
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
		status, header, body = x.status, x.header, x.body
		_, err := c.Register(t.Context(), "a", shape.Avro, one)
		if err == nil || !strings.Contains(err.Error(), x.is) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%d %s: %v", x.status, x.body, err)
		}
	}
	status, header, body = 200, "", `{"id":3,"schema":"`+strings.Repeat("x", 4<<20)+`"}`
	if id, err := c.Register(t.Context(), "a", shape.Avro, one); id != 3 || err != nil {
		t.Error(id, err)
	}
}
