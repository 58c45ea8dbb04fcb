package main

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/leat-cdc/leat/internal/servers"
)

// eventsOfEachKind writes to the database what there is, and returns the lines of the file that the subscription
// writes, whole ones from its beginning, once all of it is there.
func eventsOfEachKind(t *testing.T, p *process, db *sql.DB, file string) [][]byte {
	t.Helper()
	execAll(t, db, `CREATE TABLE "odd ü" ("a key" integer PRIMARY KEY, "class" text NOT NULL, big text)`, `ALTER TABLE "odd ü" ALTER big SET STORAGE EXTERNAL`,
		`INSERT INTO "odd ü" VALUES (1, 'x', repeat('long', 1000))`, `UPDATE "odd ü" SET "class" = 'y'`, `UPDATE "odd ü" SET "a key" = 2`,
		`ALTER TABLE "odd ü" ADD more boolean`, `INSERT INTO "odd ü" VALUES (3, 'z', NULL, true)`, `TRUNCATE "odd ü"`,
		"SELECT pg_logical_emit_message(true, 'app', 'hello')", `SELECT pg_logical_emit_message(true, 'raw', '\xff'::bytea)`,
		"CREATE TABLE bare (n integer)", "INSERT INTO bare VALUES (1)", "DELETE FROM kinds")
	var lines [][]byte
	until(t, p, "the last event in the file", func() bool {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text = text[:bytes.LastIndexByte(text, '\n')+1]
		deleted := bytes.LastIndex(text, []byte(`"op":"delete","table":"public.kinds"`))
		lines = bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
		return deleted > 0 && bytes.Contains(text[deleted:], []byte(`leat.resolved`))
	})
	return some(t, lines)
}

// some leaves out what is like what came before: a few of each operation of a table say all.
func some(t *testing.T, lines [][]byte) [][]byte {
	t.Helper()
	seen := map[string]int{}
	var out [][]byte
	for _, line := range lines {
		var e struct{ Type, Subject string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if seen[e.Type+e.Subject]++; seen[e.Type+e.Subject] <= 5 {
			out = append(out, line)
		}
	}
	for _, kind := range []string{"insert", "update", "delete", "truncate", "schema", "message", "resolved"} {
		if !slices.ContainsFunc(out, func(line []byte) bool { return bytes.Contains(line, []byte(`"type":"leat.`+kind+`"`)) }) {
			t.Errorf("there is no event leat.%s in the file", kind)
		}
	}
	return out
}

// readByOthers gives the lines to the SDKs of CloudEvents: each has the same to say of every event.
func readByOthers(t *testing.T, lines [][]byte) {
	file := filepath.Join(t.TempDir(), "some.jsonl")
	if err := os.WriteFile(file, append(bytes.Join(lines, []byte("\n")), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	want := make([][]any, len(lines))
	for i, line := range lines {
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		want[i] = []any{e["id"], e["type"], e["source"], e["subject"], millis(t, e["time"].(string)), e["dataschema"], e["partitionkey"], e["sequence"], e["data"]}
	}
	t.Run("Go", func(t *testing.T) {
		for i, line := range lines {
			var e event.Event
			if err := errors.Join(json.Unmarshal(line, &e), e.Validate()); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			var data any
			if err := e.DataAs(&data); err != nil {
				t.Fatal(err)
			}
			maybe := func(s string) any {
				if s == "" {
					return nil
				}
				return s
			}
			got := []any{e.ID(), e.Type(), e.Source(), maybe(e.Subject()), float64(e.Time().UnixMilli()), maybe(e.DataSchema()), e.Extensions()["partitionkey"], e.Extensions()["sequence"], data}
			if !reflect.DeepEqual(got, want[i]) {
				t.Errorf("got\n%v, want\n%v", got, want[i])
			}
		}
	})
	t.Run("Python", func(t *testing.T) {
		if python := withPython(t); python != "" {
			compare(t, exec.CommandContext(t.Context(), python, "testdata/cloudevents_sdk.py", file), want)
		}
	})
	t.Run("JavaScript", func(t *testing.T) {
		node, modules := withNode(t)
		if node == "" {
			return
		}
		program := filepath.Join(filepath.Dir(file), "events.mjs")
		text, err := os.ReadFile("testdata/cloudevents_sdk.mjs")
		if err := errors.Join(err, os.WriteFile(program, text, 0o600), os.Symlink(modules, filepath.Join(filepath.Dir(file), "node_modules"))); err != nil {
			t.Fatal(err)
		}
		compare(t, exec.CommandContext(t.Context(), node, program, file), want)
	})
}

func millis(t *testing.T, text string) float64 {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return float64(at.UnixMilli())
}

// compare runs a program that tells what it read, a line for each event.
func compare(t *testing.T, cmd *exec.Cmd, want [][]any) {
	t.Helper()
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	d := json.NewDecoder(bytes.NewReader(out))
	for i := range want {
		var got []any
		if err := d.Decode(&got); err != nil {
			t.Fatalf("after %d of %d events: %v", i, len(want), err)
		}
		if !reflect.DeepEqual(got, want[i]) {
			t.Errorf("got\n%v, want\n%v", got, want[i])
		}
	}
	if d.More() {
		t.Error("more events than there are")
	}
}

// withNode is Node and the packages of the tests; empty where there is none.
func withNode(t *testing.T) (node, modules string) {
	t.Helper()
	node, modules, err := servers.Node(t.Context(), func(s string) { t.Log(s) }, filepath.Join("..", "..", "clients", "typescript", "tests"))
	if errors.Is(err, servers.ErrNoNode) {
		t.Logf("NOT RUN: %v, so what it reads was not tried here", err)
		return "", ""
	}
	if err != nil {
		t.Fatal(fmt.Errorf("node: %w", err))
	}
	return node, modules
}

// typed compiles the events of the file against the types that leat schemas typescript prints: as literals, so that a
// column or field too many is an error as one that is missing is.
func typed(t *testing.T, dir, addr string, lines [][]byte) {
	node, modules := withNode(t)
	if node == "" {
		return
	}
	types, code := leat(t, dir, "schemas", "typescript", "lines", "--addr", "http://"+addr)
	if code != 0 {
		t.Fatalf("leat schemas typescript ends with %d: %s", code, types)
	}
	text := "import type { AnyEvent } from \"./leat.js\";\n"
	for i, line := range lines {
		var e struct{ Subject, Dataschema string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		version := e.Dataschema[strings.LastIndexByte(e.Dataschema, '/')+1:]
		if e.Subject == "" || strings.Contains(types, "A row of "+e.Subject+", version "+version+".") { // of an older shape there are none
			text += fmt.Sprintf("export const e%d: AnyEvent = %s;\n", i, line)
		}
	}
	at := t.TempDir()
	wrong := strings.Replace(text, `"words":"`, `"no_such_column":"`, 1)
	for name, text := range map[string]string{"leat.ts": types, "events.ts": text, "wrong.ts": wrong} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tsc := func(file string) (string, error) {
		cmd := exec.CommandContext(t.Context(), node, filepath.Join(modules, "typescript", "bin", "tsc"), "--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", file)
		cmd.Dir = at
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := tsc("events.ts"); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, types[strings.Index(types, "/** A row of"):])
	}
	if out, err := tsc("wrong.ts"); err == nil || !strings.Contains(out, "no_such_column") {
		t.Errorf("a column that does not exist passes: %v\n%s", err, out)
	}
}
