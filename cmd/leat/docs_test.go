package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli"
	"github.com/leat-cdc/leat/cmd/leat/internal/config"
)

// What the pages say of the configuration, the commands and the metrics; docs/ itself tests the rest.

var blocksOf = regexp.MustCompile("(?ms)^```([a-z]+)[^\n]*\n(.*?)^```$")

func docPages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 3 {
		t.Fatalf("pages: %v, %v", files, err)
	}
	out := map[string]string{}
	for _, f := range append(files, "../../README.md", "../../CONTRIBUTING.md") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(f)] = string(b)
	}
	return out
}

// TestPagesShowGoodConfiguration: each YAML block is a whole file, or the part of one that lacks its sources.
func TestPagesShowGoodConfiguration(t *testing.T) {
	secret := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	opts := config.Options{Dir: t.TempDir(), ReadFile: func(string) ([]byte, error) { return []byte(secret), nil },
		Env: func(name string) (string, bool) {
			return secret, strings.HasSuffix(name, "PASSWORD") || strings.HasSuffix(name, "SECRET") || strings.HasSuffix(name, "SALT")
		}}
	n := 0
	for page, text := range docPages(t) {
		for _, m := range blocksOf.FindAllStringSubmatch(text, -1) {
			if m[1] != "yaml" {
				continue
			}
			n++
			file := m[2]
			if !strings.Contains(file, "sources:") {
				file = "sources: {files: {postgres: {url: \"postgres://leat@db/app\"}}}\n" + file
			}
			if _, err := config.Parse("leat.yaml", []byte(file), opts); err != nil {
				t.Errorf("%s: %v\nin:\n%s", page, err, m[2])
			}
		}
	}
	if n < 5 {
		t.Errorf("%d YAML blocks found", n)
	}
}

var (
	inline  = regexp.MustCompile("`(leat [^`\n]+)`")
	shell   = regexp.MustCompile(`(?m)^(?:\S+ )?(leat [^#|\n]*)`)
	word    = regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`)
	metrics = regexp.MustCompile(`\bleat_[a-z_]+`)
)

// TestPagesNameCommandsThatExist gives each command line of the pages to the CLI, with --help so that nothing
// is done: commands and flags must be known.
func TestPagesNameCommandsThatExist(t *testing.T) {
	n := 0
	for page, text := range docPages(t) {
		var lines []string
		for _, m := range blocksOf.FindAllStringSubmatch(text, -1) {
			if m[1] != "sh" {
				continue
			}
			for _, c := range shell.FindAllStringSubmatch(m[2], -1) {
				lines = append(lines, c[1])
			}
		}
		for _, c := range inline.FindAllStringSubmatch(text, -1) {
			lines = append(lines, c[1])
		}
		for _, line := range lines {
			n++
			var args []string
			for _, w := range word.FindAllString(line, -1)[1:] {
				args = append(args, strings.Trim(w, `'"[]`))
			}
			var out bytes.Buffer
			d := deps()
			d.Stdout, d.Stderr = &out, &out
			if err := cli.Run(t.Context(), d, append(args, "--help")); err != nil {
				t.Errorf("%s: %s: %v", page, line, err)
			}
			if strings.Contains(out.String(), "not supported by this version") {
				t.Errorf("%s: %s is not supported", page, line)
			}
			if want := "leat " + args[0]; !strings.HasPrefix(args[0], "-") && !strings.Contains(out.String(), want) {
				t.Errorf("%s: %s: the help that came is not of %q", page, line, want)
			}
		}
	}
	if n < 30 {
		t.Errorf("%d command lines found", n)
	}
}

// TestPagesNameMetricsThatExist: names that begin with leat_ and have a part of their own behind it are
// metrics, but for those of slots and publications.
func TestPagesNameMetricsThatExist(t *testing.T) {
	golden, err := os.ReadFile("internal/telemetry/testdata/names.txt")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for line := range strings.Lines(string(golden)) {
		name, _, _ := strings.Cut(line, " ")
		known[name] = true
	}
	n := 0
	for page, text := range docPages(t) {
		for _, name := range metrics.FindAllString(text, -1) {
			if base := strings.TrimSuffix(name, "_bucket"); known[base] {
				n++
				continue
			}
			// a slot; fields of documents of search engines
			if !slices.Contains([]string{"leat_files", "leat_", "leat_offset", "leat_deleted"}, name) {
				t.Errorf("%s names the metric %s, which does not exist", page, name)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d metrics found", n)
	}
}

// TestStatesAreExplained: each state of a source and of a subscription has a row.
func TestStatesAreExplained(t *testing.T) {
	text := docPages(t)["operations.md"]
	src, err := os.ReadFile("internal/telemetry/gauges.go")
	if err != nil {
		t.Fatal(err)
	}
	for title, list := range map[string]string{"### States of a source": "sourceStates", "### States of a subscription": "subscriptionStates"} {
		_, part, _ := strings.Cut(text, title)
		part, _, _ = strings.Cut(part, "\n#")
		m := regexp.MustCompile(list + `\s+= \[\]string\{([^}]*)\}`).FindSubmatch(src)
		if m == nil {
			t.Fatalf("telemetry has no %s", list)
		}
		for state := range strings.SplitSeq(string(m[1]), ", ") {
			if state = strings.Trim(state, `"`); !strings.Contains(part, "| `"+state+"` |") {
				t.Errorf("%s does not explain %q", title, state)
			}
		}
	}
}
