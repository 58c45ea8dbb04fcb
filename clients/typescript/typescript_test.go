package typescript_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/clients/typescript"
	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/schemas"
)

// check runs tsc --strict over the texts, each a file; it returns what it says. Without Node it says nothing.
func check(t *testing.T, files map[string]string) (said string, ran bool) {
	t.Helper()
	node, modules, err := servers.Node(t.Context(), func(s string) { t.Log(s) }, "tests")
	if errors.Is(err, servers.ErrNoNode) {
		t.Logf("NOT RUN: %v, so no types were tried here", err)
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	args := []string{filepath.Join(modules, "typescript", "bin", "tsc"), "--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "es2022", "--module", "nodenext"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, filepath.Join(dir, name))
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), node, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), true
}

// types are one of each kind, as both databases have them.
var types = []schemas.Type{
	{Kind: schemas.KindUnknown, Name: "interval"}, {Kind: schemas.KindBool}, {Kind: schemas.KindInt, Bits: 32}, {Kind: schemas.KindInt, Bits: 64, Name: "bigint"},
	{Kind: schemas.KindUint, Bits: 64, Name: "bigint unsigned"}, {Kind: schemas.KindDecimal, Name: "numeric(10,2)"}, {Kind: schemas.KindFloat, Bits: 64},
	{Kind: schemas.KindText, Name: "text */ alert(1) /*\n"}, {Kind: schemas.KindText, Name: "enum('a','b\"')", Labels: []string{"a", "b\"\u2028\\", "😀", ""}},
	{Kind: schemas.KindText, Name: "set('a')", Labels: []string{"a"}}, {Kind: schemas.KindBytes}, {Kind: schemas.KindBits}, {Kind: schemas.KindJSON}, {Kind: schemas.KindDate},
	{Kind: schemas.KindTime}, {Kind: schemas.KindDateTime}, {Kind: schemas.KindTimestamp}, {Kind: schemas.KindVector}, {Kind: schemas.KindArray},
	{Kind: schemas.KindArray, Elem: &schemas.Type{Kind: schemas.KindFloat, Bits: 32}}, {Kind: 200},
}

// Whatever tables and columns are called, what is written compiles, and has them all.
func TestAnyNamesCompile(t *testing.T) {
	words := []string{"files", "Event", "event", "string", "class", "__proto__", "constructor", "a b", "1st", "ü", "\"", "\\", "*/", "}", "\n", "\u2028", "", "$x", "table", "Json", "public", "All_Tables", "any-event", "\xff", "😀"}
	r := rand.New(rand.NewPCG(1, 1))
	files := map[string]string{}
	for n := range 6 {
		var tables []typescript.Table
		for range 40 {
			one := typescript.Table{Subject: schemas.Subject(words[r.IntN(len(words))], fmt.Sprint(words[r.IntN(len(words))], words[r.IntN(len(words))])), Version: r.Uint32N(9)}
			if slices.ContainsFunc(tables, func(t typescript.Table) bool { return t.Subject == one.Subject }) { // a log has each once
				continue
			}
			for i, of := range r.Perm(len(words))[:r.IntN(len(words))] {
				if words[of] == "\xff" {
					continue // names are UTF-8
				}
				c := typescript.Column{Name: words[of], Type: types[r.IntN(len(types))], Nullable: r.IntN(2) == 0}
				if one.Row = append(one.Row, c); i < 2 {
					one.Key = append(one.Key, c)
				}
			}
			tables = append(tables, one)
		}
		o := typescript.Options{For: "a", Form: typescript.Form(n % 2), Int64AsString: n%3 == 0}
		text := typescript.Write(o, tables)
		for i := range tables {
			if !strings.Contains(text, "A row of "+tables[i].Subject+",") {
				t.Errorf("%s is missing", tables[i].Subject)
			}
		}
		files[fmt.Sprintf("t%d.ts", n)] = text
	}
	files["none.ts"] = typescript.Write(typescript.Options{}, nil)
	if said, _ := check(t, files); said != "" {
		t.Errorf("tsc: %s", said)
	}
}

// What a program may do with an event, and what it may not.
func TestTypesTellTheTruth(t *testing.T) {
	var row []typescript.Column
	for i, of := range types {
		row = append(row, typescript.Column{Name: fmt.Sprintf("c%d", i), Type: of, Nullable: i != 2 && i != 3})
	}
	tables := []typescript.Table{{Subject: "public.files", Row: row, Key: row[2:4]}, {Subject: "shop.bare", Row: row[:1]}}
	said, ran := check(t, map[string]string{
		"json.ts": typescript.Write(typescript.Options{}, tables), "strings.ts": typescript.Write(typescript.Options{Int64AsString: true}, tables),
		"debezium.ts": typescript.Write(typescript.Options{Form: typescript.Debezium}, tables), "use.ts": use})
	if ran && said != "" {
		t.Errorf("tsc: %s", said)
	}
}

const use = `import type { AnyEvent, PublicFiles, Results, WebhookHeaders, Event } from "./json.js";
import type { PublicFiles as Strings } from "./strings.js";
import type { AnyRecord, PublicFiles as Record } from "./debezium.js";

export function handle(e: AnyEvent): number | undefined {
  if (e.type === "leat.resolved") return Number(e.data.resolved);
  if (e.type === "leat.message") return e.data.content.length;
  if (e.subject === "shop.bare") {
    const none: null = e.data.op === "insert" ? e.data.key : null;
    return none ?? undefined;
  }
  switch (e.type) {
    case "leat.insert":
    case "leat.update": {
      if (e.data.absent === undefined) {
        const row: PublicFiles = e.data.after;
        return row.c2;
      }
      // @ts-expect-error a column that was not sent may be missing
      const row: PublicFiles = e.data.after;
      const names: (keyof PublicFiles)[] = e.data.absent;
      return names.length + row.c2;
    }
    case "leat.delete": {
      const gone: null = e.data.after;
      return gone ?? e.data.key.c3;
    }
    case "leat.truncate":
      return e.data.key ?? undefined;
    case "leat.schema":
      return e.data.columns.length;
    case "leat.snapshot":
      return e.data.tx?.seq;
  }
  const all: never = e;
  return all;
}

declare const json: PublicFiles, strings: Strings, record: Record;
export const numbers: number = json.c2 + json.c3;
export const big: string = strings.c3;
export const label: "" | "a" | "b\"\u2028\\" | "😀" | null = json.c8;
// @ts-expect-error a float may be text
export const float: number | null = json.c6;
// @ts-expect-error a column that may be null
export const bool: boolean = json.c1;
export const day: string | null = json.c13;
export const days: number | string | null = record.c13;
// @ts-expect-error no such column
export const missing = json.nothing;
export const some: Event = { specversion: "1.0", id: "a-1", source: "/sources/a", type: "leat.truncate", subject: "any.table", time: "", datacontenttype: "application/json",
  dataschema: "", partitionkey: "[]", sequence: "", data: { op: "truncate", table: "any.table", key: null, before: null, after: null, tx: null, position: null } };
export const wrong: AnyEvent = { ...some,
  // @ts-expect-error no such type
  type: "leat.other" };
export const results: Results = { results: [{ id: "a-1", status: "defer", delay: "5s" }] };
export const headers = (h: WebhookHeaders): number => Number(h["delivery-attempt"]);
export function taken(r: AnyRecord): number | string | undefined {
  if (r === null) return undefined;
  if (r.op === "d") return r.after ?? r.source.sequence;
  if (r.op === "u") return r.after.c0 ?? undefined;
  return r.op === undefined ? r.ddl : r.ts_ms;
}
`
