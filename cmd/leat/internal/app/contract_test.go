package app

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A DDL that breaks a contract holds its subscription alone, before the first event of the new shape, and says both
// shapes; once the contract is another, it goes on where it stood.
func TestContractIsKept(t *testing.T) {
	t.Parallel()
	db, held, free, dir := newPG(t), newHook(t), newHook(t), t.TempDir()
	contract := filepath.Join(dir, "search.avsc")
	write := func(size string) {
		t.Helper()
		text := fmt.Sprintf(`{"type":"record","name":"File","fields":[{"name":"id","type":"long"},{"name":"title","type":["null","string"]},{"name":"size","type":["null",%q]}]}`, size)
		if err := os.WriteFile(contract, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("long")
	in := install(t, dir, db.yaml("search: {source: files, contract: {schema: search.avsc, compatibility: backward}, mapping: {public.files: {rename: {name: title}}}, deliver: {"+toHook(held)+"}}",
		"other: {source: files, deliver: {"+toHook(free)+"}}"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files VALUES (1, 'a', 5)")
	if e := held.waits(t, 1)[0]; e.Data.After["title"] != "a" || e.Data.After["name"] != nil {
		t.Fatal(e.Data.After)
	}
	db.exec(t, "INSERT INTO files VALUES (2, 'b', 6)", "ALTER TABLE files ALTER COLUMN size TYPE text", "INSERT INTO files VALUES (3, 'c', 'seven')")
	rows := func(h *hook) (n int) {
		for _, e := range h.got(t) {
			if e.Data.Op == "insert" {
				n++
			}
		}
		return n
	}
	until(t, "the other subscription to get all", func() bool { return rows(free) == 3 })
	why := ""
	until(t, "the reason to be told", func() bool {
		why = in.subscription(t, "search").String()
		return strings.Contains(why, "breaks the contract")
	})
	for _, part := range []string{"public.files", "size text", "search.avsc", "id long", "not backward compatible"} {
		if !strings.Contains(why, part) {
			t.Errorf("%q is not told: %s", part, why)
		}
	}
	if n := rows(held); n != 2 {
		t.Fatalf("%d rows came", n)
	}
	write("string")
	until(t, "it to go on", func() bool { return rows(held) == 3 })
	if letters, err := filepath.Glob(filepath.Join(dir, "parked")); err != nil || len(letters) > 0 {
		t.Error(letters, err)
	}
}
