package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// shelf is a store that may fail.
type shelf struct {
	all  []Version
	fail error
	kept bool // though it failed
}

func (s *shelf) Schemas(context.Context) ([]Version, error) { return s.all, nil }

func (s *shelf) PutSchema(ctx context.Context, v Version) error {
	if s.fail == nil || s.kept {
		s.all = append(s.all, v)
	}
	return errors.Join(s.fail, ctx.Err())
}

const (
	one  = `{"type":"record","name":"V","fields":[{"name":"id","type":"long"}]}`
	two  = `{"type":"record","name":"V","fields":[{"name":"id","type":"long"},{"name":"n","type":["null","string"],"default":null}]}`
	text = `{"type":"record","name":"V","fields":[{"name":"id","type":"string"}]}`
	file = "syntax = \"proto3\";\nmessage V { int64 id = 1; }\n"
)

func open(t *testing.T, s *shelf, mode compat.Mode) *Embedded {
	t.Helper()
	e, err := Open(t.Context(), s, mode)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEmbedded(t *testing.T) {
	s := &shelf{}
	e := open(t, s, compat.Backward)
	register := func(subject, text string, want uint32) {
		t.Helper()
		if id, err := e.Register(t.Context(), subject, shape.Avro, text); id != want || err != nil {
			t.Fatal(id, err)
		}
	}
	register("a-value", one, 1)
	register("a-value", one, 1)
	register("a-value", two, 2)
	register("b-value", two, 2)
	register("b-value", one, 1)
	var ce *compat.Error
	if _, err := e.Register(t.Context(), "a-value", shape.Avro, text); !errors.As(err, &ce) || ce.Version != 2 {
		t.Fatal(err)
	}
	if _, err := e.Register(t.Context(), "a-value", shape.Avro, "{"); err == nil {
		t.Fatal("garbage is taken")
	}
	if _, err := e.Register(t.Context(), "a-value", shape.Protobuf, file); err == nil {
		t.Fatal("another type is taken")
	}
	s.fail = errors.New("disk full")
	if _, err := e.Register(t.Context(), "c", shape.Avro, text); err == nil || len(e.Subjects()) != 2 {
		t.Fatal("what is not kept has an id")
	}
	s.fail = nil
	e = open(t, s, compat.None) // again, from what was kept
	register("a-value", two, 2)
	register("a-value", text, 3)
	if all, err := e.Subject("a-value"); len(all) != 3 || err != nil || all[2].Version != 3 {
		t.Error(all, err)
	}
	if got, _ := e.Versions(t.Context(), "a-value", shape.Avro); !slices.Equal(got, []string{one, two, text}) {
		t.Error(got)
	}
}

// A schema that was written though the store said no keeps its id for itself; whoever asked may be gone meanwhile.
func TestIDsStandForOneSchema(t *testing.T) {
	s := &shelf{}
	e := open(t, s, compat.Backward)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if id, err := e.Register(gone, "a", shape.Avro, one); id != 1 || err != nil {
		t.Fatal(id, err)
	}
	s.fail, s.kept = context.DeadlineExceeded, true
	if _, err := e.Register(t.Context(), "b", shape.Avro, two); err == nil {
		t.Fatal("the error is not told")
	}
	s.fail, s.kept = nil, false
	for subject, want := range map[string]uint32{"c": 3, "b": 2} {
		if id, err := e.Register(t.Context(), subject, shape.Avro, map[string]string{"c": text, "b": two}[subject]); id != want || err != nil {
			t.Errorf("%s: %d %v", subject, id, err)
		}
	}
	if len(s.all) != 3 {
		t.Error(s.all)
	}
	s.all = append(s.all, Version{Subject: "d", Version: 1, ID: 1, Format: shape.Avro, Text: two})
	if _, err := Open(t.Context(), s, compat.Backward); err == nil || !strings.Contains(err.Error(), "id 1") {
		t.Error("an id of two schemas is taken:", err)
	}
}

func TestHandler(t *testing.T) {
	e := open(t, &shelf{}, compat.Backward)
	for subject, s := range map[string]string{"a/b-value": one, "p": file} {
		f := shape.Avro
		if s == file {
			f = shape.Protobuf
		}
		if _, err := e.Register(t.Context(), subject, f, s); err != nil {
			t.Fatal(err)
		}
	}
	id := func(subject string) string {
		all, _ := e.Subject(subject)
		return string('0' + rune(all[0].ID))
	}
	a, p := id("a/b-value"), id("p")
	quoted, _ := json.Marshal(one)
	wider := strings.ReplaceAll(string(quoted), "long", "double")
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/subjects", "", 200, `["a/b-value","p"]`},
		{"GET", "/subjects/a%2Fb-value/versions", "", 200, `[1]`},
		{"GET", "/subjects/a%2Fb-value/versions/latest", "", 200, `{"subject":"a/b-value","version":1,"id":` + a + `,"schema":` + string(quoted) + `}`},
		{"GET", "/subjects/a%2Fb-value/versions/1/schema", "", 200, one},
		{"GET", "/subjects/a%2Fb-value/versions/2", "", 404, `"error_code":40402`},
		{"GET", "/subjects/a%2Fb-value/versions/x", "", 422, `"error_code":42202`},
		{"GET", "/subjects/no/versions", "", 404, `"error_code":40401`},
		{"GET", "/schemas/ids/" + a, "", 200, `{"schema":` + string(quoted) + `}`},
		{"GET", "/schemas/ids/" + a + "/subjects", "", 200, `["a/b-value"]`},
		{"GET", "/schemas/ids/" + a + "/versions", "", 200, `[{"subject":"a/b-value","version":1}]`},
		{"GET", "/schemas/ids/" + p, "", 200, `"schemaType":"PROTOBUF"`},
		{"GET", "/schemas/ids/" + p + "?format=serialized", "", 200, `"schema":"Cg`},
		{"GET", "/schemas/ids/99", "", 404, `"error_code":40403`},
		{"GET", "/schemas/types", "", 200, `["AVRO","PROTOBUF","JSON"]`},
		{"GET", "/config", "", 200, `{"compatibilityLevel":"BACKWARD"}`},
		{"GET", "/mode", "", 200, `READONLY`},
		{"POST", "/subjects/a%2Fb-value", `{"schema":` + string(quoted) + `}`, 200, `"version":1`},
		{"POST", "/subjects/a%2Fb-value", `{"schema":"\"int\""}`, 404, `"error_code":40403`},
		{"POST", "/subjects/a%2Fb-value", `{`, 422, `"error_code":42201`},
		{"POST", "/subjects/a%2Fb-value/versions", `{"schema":` + string(quoted) + `}`, 405, `read only`},
		{"POST", "/compatibility/subjects/a%2Fb-value/versions/latest", `{"schema":` + wider + `}`, 200, `{"is_compatible":true}`},
		{"POST", "/compatibility/subjects/a%2Fb-value/versions?verbose=true", `{"schema":` + strings.ReplaceAll(string(quoted), "long", "string") + `}`, 200, `{"is_compatible":false,"messages":[`},
		{"DELETE", "/subjects/p", "", 405, "read only"},
		{"GET", "/nothing", "", 404, `"error_code":404`},
	} {
		w := httptest.NewRecorder()
		e.Handler("/registry").ServeHTTP(w, httptest.NewRequest(c.method, "/registry"+c.path, strings.NewReader(c.body)))
		if got := strings.TrimSpace(w.Body.String()); w.Code != c.status || !strings.Contains(got, c.want) || !strings.HasPrefix(w.Header().Get("Content-Type"), contentType) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, w.Code, got, c.status, c.want)
		}
	}
}

// Who may only read takes a bounded part of the CPU: long schemas are refused, one at a time is read, and nobody who
// registers waits for that.
func TestHandlerIsFrugal(t *testing.T) {
	e := open(t, &shelf{}, compat.Backward)
	if _, err := e.Register(t.Context(), "p", shape.Protobuf, file); err != nil {
		t.Fatal(err)
	}
	post := func(ctx context.Context, path, schema string) int {
		body, err := json.Marshal(map[string]string{"schemaType": "PROTOBUF", "schema": schema})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		e.Handler("").ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", path, bytes.NewReader(body)))
		return w.Code
	}
	paths := []string{"/subjects/p", "/compatibility/subjects/p/versions", "/compatibility/subjects/p/versions/1"}
	for _, path := range paths {
		if status := post(t.Context(), path, file+strings.Repeat("\n", maxBody)); status != 422 {
			t.Errorf("%s: a long schema: %d", path, status)
		}
		if status := post(t.Context(), path, file); status != 200 {
			t.Errorf("%s: %d", path, status)
		}
	}
	e.judging <- struct{}{}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, path := range paths {
		if status := post(gone, path, "\n"+file); status != 500 {
			t.Errorf("%s: %d while another schema is read", path, status)
		}
	}
	if _, err := e.Register(t.Context(), "q", shape.Protobuf, file); err != nil {
		t.Fatal(err)
	}
	<-e.judging
}

// elsewhere is a registry that takes schemas over HTTP, as those elsewhere do.
func elsewhere(t *testing.T, e *Embedded, calls *int) *Client {
	t.Helper()
	read := e.Handler("/api")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*calls++
		user, password, _ := r.BasicAuth()
		subject, isNew := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/api/subjects/"), "/versions")
		switch {
		case user != "u" || password != "geheim":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPost && isNew:
			var q question
			_ = json.NewDecoder(r.Body).Decode(&q)
			if q.Type == "" {
				q.Type = shape.Avro
			}
			id, err := e.Register(r.Context(), subject, q.Type, q.Schema)
			if err != nil {
				fail(w, http.StatusConflict, 409, err.Error())
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]uint32{"id": id})
		default:
			read.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	c, err := NewClient(ClientOptions{URL: s.URL + "/api/", User: "u", Password: "geheim"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestClient(t *testing.T) {
	e, calls := open(t, &shelf{}, compat.Backward), 0
	c := elsewhere(t, e, &calls)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, s := range []string{one, two, one} {
		id, err := c.Register(t.Context(), "a b/c-value", shape.Avro, s)
		if want := []uint32{1, 2, 1}[i]; id != want || err != nil {
			t.Fatal(id, err)
		}
	}
	if calls != 5 {
		t.Errorf("%d calls", calls)
	}
	if got, err := c.Versions(t.Context(), "a b/c-value", shape.Avro); !slices.Equal(got, []string{one, two}) || err != nil {
		t.Error(got, err)
	}
	if got, err := c.Versions(t.Context(), "none", shape.Avro); len(got) != 0 || err != nil {
		t.Error(got, err)
	}
	if _, err := c.Register(t.Context(), "a b/c-value", shape.Avro, text); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Error(err)
	}
	c.o.Password = "wrong"
	if _, err := c.Register(t.Context(), "x", shape.Avro, text); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "wrong") {
		t.Error(err)
	}
	if _, err := c.Register(t.Context(), "a b/c-value", shape.Avro, two); err != nil {
		t.Error("what is known was asked for again:", err)
	}
}

// What a registry may answer is an error that says so.
func TestClientOddAnswers(t *testing.T) {
	for body, want := range map[string]string{"<html>": "not as its API says", `{}`: "gave no id", `{"id":0}`: "gave no id"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, body) }))
		c, err := NewClient(ClientOptions{URL: s.URL, Token: "geheim"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Register(t.Context(), "a", shape.Avro, one); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", body, err)
		}
		s.Close()
		if _, err := c.Register(t.Context(), "a", shape.Avro, one); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "ftp://x", "http://", "::"} {
		if _, err := NewClient(ClientOptions{URL: bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
