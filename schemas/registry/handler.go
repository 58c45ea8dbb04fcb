package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/leat-cdc/leat/schemas/registry/compat"
	"github.com/leat-cdc/leat/schemas/shape"
)

// Codes of errors, of Confluent's API.
const (
	codeNoSubject = 40401
	codeNoVersion = 40402
	codeNoSchema  = 40403
	codeInvalid   = 42201
	codeVersion   = 42202
)

const (
	contentType = "application/vnd.schemaregistry.v1+json"
	maxBody     = 256 << 10
)

// answer of a schema. schemaType is left out for Avro: that is what older clients know.
type answer struct {
	Subject string       `json:"subject,omitempty"`
	Version int          `json:"version,omitempty"`
	ID      uint32       `json:"id,omitempty"`
	Type    shape.Format `json:"schemaType,omitempty"`
	Schema  string       `json:"schema"`
}

// question of a schema. Apicurio knows no schemaType that is empty.
type question struct {
	Type   shape.Format `json:"schemaType,omitempty"`
	Schema string       `json:"schema"`
}

// Handler answers the part of Confluent's API that reads: ordinary deserialisers need no more. Paths begin with
// prefix, which has no slash at its end.
func (e *Embedded) Handler(prefix string) http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("GET "+prefix+path, func(w http.ResponseWriter, r *http.Request) { reply(w, r, f) })
	}
	post := func(path string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc("POST "+prefix+path, func(w http.ResponseWriter, r *http.Request) { reply(w, r, f) })
	}
	get("/{$}", func(*http.Request) (any, error) { return struct{}{}, nil })
	get("/subjects", func(*http.Request) (any, error) { return e.Subjects(), nil })
	get("/subjects/{subject}/versions", e.listVersions)
	get("/subjects/{subject}/versions/{version}", e.showVersion)
	get("/subjects/{subject}/versions/{version}/schema", e.showText)
	get("/schemas/types", func(*http.Request) (any, error) {
		return []shape.Format{shape.Avro, shape.Protobuf, shape.JSONSchema}, nil
	})
	get("/schemas/ids/{id}", e.showID)
	get("/schemas/ids/{id}/schema", e.showIDText)
	get("/schemas/ids/{id}/subjects", e.idSubjects)
	get("/schemas/ids/{id}/versions", e.idVersions)
	mode := func(*http.Request) (any, error) {
		return map[string]compat.Mode{"compatibilityLevel": e.Mode()}, nil
	}
	get("/config", mode)
	get("/config/{subject}", mode)
	readOnly := func(*http.Request) (any, error) { return map[string]string{"mode": "READONLY"}, nil }
	get("/mode", readOnly)
	get("/mode/{subject}", readOnly)
	post("/subjects/{subject}", e.lookUp)
	post("/compatibility/subjects/{subject}/versions/{version}", e.compatible)
	post("/compatibility/subjects/{subject}/versions", e.compatible)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			fail(w, http.StatusMethodNotAllowed, 405, "this registry is read only: Leat itself registers the schemas of its tables")
			return
		}
		fail(w, http.StatusNotFound, 404, "no such path of the schema registry")
	})
	return mux
}

// refusal is an error with its code.
type refusal struct {
	code int
	text string
}

// Error is for people.
func (r *refusal) Error() string { return r.text }

func reply(w http.ResponseWriter, r *http.Request, f func(r *http.Request) (any, error)) {
	v, err := f(r)
	var no *refusal
	switch {
	case errors.As(err, &no):
		fail(w, no.code/100, no.code, no.text)
		return
	case err != nil:
		fail(w, http.StatusInternalServerError, 50001, err.Error())
		return
	}
	w.Header().Set("Content-Type", contentType)
	if s, ok := v.(verbatim); ok {
		// Fails when the client is gone: there is nobody to tell.
		_, _ = io.WriteString(w, string(s))
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}

// verbatim is an answer that is JSON, or text, as it stands.
type verbatim string

func fail(w http.ResponseWriter, status, code int, text string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error_code": code, "message": text})
}

func (e *Embedded) subject(r *http.Request) ([]Version, error) {
	name := r.PathValue("subject")
	all, err := e.Subject(name)
	if err != nil {
		return nil, &refusal{codeNoSubject, fmt.Sprintf("Subject '%s' not found.", name)}
	}
	return all, nil
}

func (e *Embedded) version(r *http.Request) (Version, error) {
	all, err := e.subject(r)
	if err != nil {
		return Version{}, err
	}
	text := r.PathValue("version")
	if text == "latest" || text == "-1" || text == "" {
		return all[len(all)-1], nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return Version{}, &refusal{codeVersion, fmt.Sprintf("The specified version '%s' is not a valid version id.", text)}
	}
	if n > len(all) {
		return Version{}, &refusal{codeNoVersion, fmt.Sprintf("Version %d not found.", n)}
	}
	return all[n-1], nil
}

func (e *Embedded) listVersions(r *http.Request) (any, error) {
	all, err := e.subject(r)
	numbers := []int{}
	for _, v := range all {
		numbers = append(numbers, v.Version)
	}
	return numbers, err
}

func (e *Embedded) showVersion(r *http.Request) (any, error) {
	v, err := e.version(r)
	if err != nil {
		return nil, err
	}
	return e.describe(v, r)
}

// describe writes a version; a .proto file as a descriptor where the client asks for that.
func (e *Embedded) describe(v Version, r *http.Request) (answer, error) {
	a := answer{Subject: v.Subject, Version: v.Version, ID: v.ID, Type: v.Format, Schema: v.Text}
	if v.Format == shape.Avro {
		a.Type = ""
	}
	if v.Format == shape.Protobuf && r.URL.Query().Get("format") == "serialized" {
		text, err := e.serialize(v)
		if err != nil {
			return a, err
		}
		a.Schema = text
	}
	return a, nil
}

// serialize compiles each .proto file once: to ask often costs little.
func (e *Embedded) serialize(v Version) (string, error) {
	e.compiling.Lock()
	defer e.compiling.Unlock()
	if text, ok := e.compiled[v.ID]; ok {
		return text, nil
	}
	text, err := compat.SerializedProtobuf(v.Text)
	if err != nil {
		return "", err
	}
	e.compiled[v.ID] = text
	return text, nil
}

func (e *Embedded) showText(r *http.Request) (any, error) {
	v, err := e.version(r)
	return verbatim(v.Text), err
}

func (e *Embedded) byPath(r *http.Request) (Version, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 32)
	if err == nil {
		var v Version
		if v, err = e.ByID(uint32(id)); err == nil {
			return v, nil
		}
	}
	return Version{}, &refusal{codeNoSchema, "Schema " + r.PathValue("id") + " not found."}
}

func (e *Embedded) showID(r *http.Request) (any, error) {
	v, err := e.byPath(r)
	if err != nil {
		return nil, err
	}
	a, err := e.describe(v, r)
	return answer{Type: a.Type, Schema: a.Schema}, err
}

func (e *Embedded) showIDText(r *http.Request) (any, error) {
	v, err := e.byPath(r)
	return verbatim(v.Text), err
}

func (e *Embedded) idSubjects(r *http.Request) (any, error) {
	v, err := e.byPath(r)
	names := []string{}
	for _, use := range e.Uses(v.ID) {
		names = append(names, use.Subject)
	}
	return names, err
}

func (e *Embedded) idVersions(r *http.Request) (any, error) {
	v, err := e.byPath(r)
	type use struct {
		Subject string `json:"subject"`
		Version int    `json:"version"`
	}
	uses := []use{}
	for _, u := range e.Uses(v.ID) {
		uses = append(uses, use{u.Subject, u.Version})
	}
	return uses, err
}

func read(r *http.Request) (question, error) {
	q := question{}
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody)).Decode(&q); err != nil {
		return q, &refusal{codeInvalid, "The body is not JSON with a schema: " + err.Error()}
	}
	if q.Type == "" {
		q.Type = shape.Avro
	}
	return q, nil
}

// judge waits for its turn to read a schema of a client; done ends it.
func (e *Embedded) judge(r *http.Request) (done func(), err error) {
	select {
	case e.judging <- struct{}{}:
		return func() { <-e.judging }, nil
	case <-r.Context().Done():
		return nil, fmt.Errorf("wait to read the schema: %w", r.Context().Err())
	}
}

// lookUp finds the version that a client's own schema is.
func (e *Embedded) lookUp(r *http.Request) (any, error) {
	all, err := e.subject(r)
	if err != nil {
		return nil, err
	}
	q, err := read(r)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(v Version) bool { return v.Format != q.Type })
	texts := make([]string, len(all))
	for i, v := range all {
		texts[i] = v.Text
	}
	done, err := e.judge(r)
	if err != nil {
		return nil, err
	}
	defer done()
	if i := compat.Find(q.Type, q.Schema, texts); i >= 0 {
		return e.describe(all[i], r)
	}
	return nil, &refusal{codeNoSchema, "Schema not found."}
}

func (e *Embedded) compatible(r *http.Request) (any, error) {
	q, err := read(r)
	if err != nil {
		return nil, err
	}
	done, err := e.judge(r)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := compat.Valid(q.Type, q.Schema); err != nil {
		return nil, &refusal{codeInvalid, err.Error()}
	}
	out := struct {
		Compatible bool     `json:"is_compatible"`
		Messages   []string `json:"messages,omitempty"`
	}{Compatible: true}
	if r.PathValue("version") == "" {
		var all []Version
		if all, err = e.Subject(r.PathValue("subject")); errors.Is(err, ErrNotFound) {
			err = nil // the first version of a subject goes with all
		} else if err == nil {
			err = check(e.Mode(), all, q.Type, q.Schema)
		}
	} else {
		v, verr := e.version(r)
		if verr != nil {
			return nil, verr
		}
		err = compat.Check(e.Mode(), q.Type, q.Schema, []string{v.Text})
	}
	if err != nil {
		out.Compatible = false
		if r.URL.Query().Get("verbose") == "true" {
			out.Messages = []string{err.Error()}
		}
	}
	return out, nil
}
