package app

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// The types are those of what a subscription sees, not of the table.
func TestTypesAreAsTheSubscriptionSees(t *testing.T) {
	t.Parallel()
	db := newPG(t)
	db.exec(t, "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, email text, day date, hidden text)", "CREATE TABLE other (id integer)")
	in := install(t, t.TempDir(), db.yaml(
		`seen: {source: files, tables: [public.users], columns: {public.users: ["!hidden"]}, json: {int64: string}, mapping: {public.users: {rename: {name: full_name}, constant: {shard: 7}}}, deliver: {stdout: {}}}`,
		`masked: {source: files, tables: [public.users], mapping: {public.users: {mask: {name: redact}, cast: {id: string}, drop: [day]}}, deliver: {stdout: {}}}`,
		`old: {source: files, tables: [public.users], deliver: {kafka: {brokers: ["127.0.0.1:1"], encoding: debezium}}}`,
		`avro: {source: files, tables: [public.users], deliver: {kafka: {brokers: ["127.0.0.1:1"], encoding: avro}}}`))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO users VALUES (1, 'a')", "INSERT INTO other VALUES (1)")
	types := func(name string) (int, string) {
		r, err := in.http.Get("http://" + in.addr + "/v1/subscriptions/" + name + "/types.ts")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		_, rows, found := strings.Cut(string(text), "/** A row of ")
		if !found {
			rows = string(text)
		}
		return r.StatusCode, rows
	}
	until(t, "the table in the log", func() bool { _, text := types("seen"); return strings.Contains(text, "public.users") })
	for name, want := range map[string]struct {
		code    int
		has, no []string
	}{
		"seen":    {http.StatusOK, []string{"  id: string;", "  full_name: string;", "  email: string | null;", "  shard: ", "AnyEvent"}, []string{"hidden", "  name:", "public.other"}},
		"masked":  {http.StatusOK, []string{"  id: string;", "  name: string | null;", "  hidden: string | null;"}, []string{"  day:"}},
		"old":     {http.StatusOK, []string{"  id: number;", "  day: number | string | null;", "AnyRecord"}, []string{"AnyEvent"}},
		"avro":    {http.StatusConflict, []string{"avro", "/registry"}, nil},
		"nothing": {http.StatusNotFound, []string{`no subscription "nothing"`}, nil},
	} {
		code, text := types(name)
		if code != want.code {
			t.Errorf("%s: %d, want %d: %s", name, code, want.code, text)
		}
		for _, part := range want.has {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is missing in\n%s", name, part, text)
			}
		}
		for _, part := range want.no {
			if strings.Contains(text, part) {
				t.Errorf("%s: has %q:\n%s", name, part, text)
			}
		}
	}
}
