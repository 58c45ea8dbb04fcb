package docs_test

import (
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// pages are all Markdown files of the project.
func pages(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && (name == ".git" || name == "bin" || name == "node_modules" || name == "out") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			out = append(out, path)
		}
		return nil
	})
	if err != nil || len(out) < 5 {
		t.Fatalf("look for pages: %v, %v", out, err)
	}
	return out
}

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	anyFence = regexp.MustCompile("(?ms)^```.*?^```$")
)

// anchors are the places within a page, as GitHub makes them.
func anchors(text string) []string {
	var out []string
	for _, m := range heading.FindAllStringSubmatch(anyFence.ReplaceAllString(text, ""), -1) {
		out = append(out, strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, m[1]))
	}
	return out
}

func TestLinksResolve(t *testing.T) {
	for _, page := range pages(t) {
		text := read(t, page)
		for _, m := range link.FindAllStringSubmatch(anyFence.ReplaceAllString(text, ""), -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %s: %v", page, m[1], err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			target := text
			if u.Path != "" {
				file := filepath.Join(filepath.Dir(page), u.Path)
				if _, err := os.Stat(file); err != nil {
					t.Errorf("%s: %s leads nowhere", page, m[1])
					continue
				}
				if u.Fragment == "" {
					continue
				}
				target = read(t, file)
			}
			if !slices.Contains(anchors(target), u.Fragment) {
				t.Errorf("%s: %s: there is no such heading", page, m[1])
			}
		}
	}
}

func TestMakeTargetsExist(t *testing.T) {
	makefile := read(t, "../Makefile")
	// In code, at the start of a line or of a span: "make sure" in a sentence is none.
	named := regexp.MustCompile("(?m)(?:^|`)make ([a-z-]+)")
	for _, page := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(read(t, page), -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
				t.Errorf("%s names make %s, which the Makefile lacks", page, m[1])
			}
		}
	}
}

// TestFilesExist: files that the pages name in code are there.
func TestFilesExist(t *testing.T) {
	named := regexp.MustCompile("`((?:[a-z0-9_]+/)+[a-zA-Z0-9_.]+\\.(?:go|md|proto|sql|yaml|sh))`")
	n := 0
	for _, page := range []string{"architecture.md", "operations.md", "subscribers.md", "../CONTRIBUTING.md", "../README.md"} {
		for _, m := range named.FindAllStringSubmatch(read(t, page), -1) {
			n++
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
				t.Errorf("%s names %s, which is not there", page, m[1])
			}
		}
	}
	if n < 20 {
		t.Errorf("%d files found on the pages", n)
	}
}

// goFiles reads the Go files below a folder that pass.
func goFiles(t *testing.T, root string, pass func(path string) bool) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".go") && pass(path) {
			all.WriteString(read(t, path) + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func isTest(path string) bool { return strings.HasSuffix(path, "_test.go") }

// section is what stands under a heading, up to the next of its level or above.
func section(t *testing.T, page, title string) string {
	t.Helper()
	text := read(t, page)
	i := strings.Index(text, "\n"+title+"\n")
	if i < 0 {
		t.Fatalf("%s has no heading %q", page, title)
	}
	text = text[i+1+len(title):]
	level := strings.IndexByte(title, ' ')
	if end := regexp.MustCompile(`(?m)^#{1,` + string(rune('0'+level)) + `} `).FindStringIndex(text); end != nil {
		text = text[:end[0]]
	}
	return text
}

// TestInvariantsHaveTheirTests: each row of the table names tests that exist where it says.
func TestInvariantsHaveTheirTests(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| \d+ \|.*$`).FindAllString(section(t, "architecture.md", "## Invariants"), -1)
	if len(rows) < 11 {
		t.Errorf("%d invariants, the design has 11", len(rows))
	}
	name := regexp.MustCompile("`([a-z/]+): ((?:Test|Fuzz)[A-Za-z0-9]+(?:, (?:Test|Fuzz)[A-Za-z0-9]+)*)`")
	for _, row := range rows {
		found := name.FindAllStringSubmatch(row, -1)
		if len(found) == 0 {
			t.Errorf("no test in the form `folder: TestName` guards: %s", row)
		}
		for _, m := range found {
			files, err := filepath.Glob(filepath.Join("..", m[1], "*_test.go"))
			if err != nil || len(files) == 0 {
				t.Errorf("%s has no tests (%v)", m[1], err)
			}
			var text strings.Builder
			for _, f := range files {
				text.WriteString(read(t, f))
			}
			for test := range strings.SplitSeq(m[2], ", ") {
				if !strings.Contains(text.String(), "\nfunc "+test+"(") {
					t.Errorf("%s has no %s", m[1], test)
				}
			}
		}
	}
}

// TestCodesHaveTheirCure: every code that a source may stop or quarantine with stands in the tables.
func TestCodesHaveTheirCure(t *testing.T) {
	for _, c := range []struct{ root, title, pattern string }{
		{"../sources/postgres", "### PostgreSQL", `\bCode[A-Z]\w+\s+= "(\w+)"`},
		{"../sources/mysql", "### MySQL and MariaDB", `\b(?:stopped|transient)\("(\w+)"`},
		{"../sources/mysql", "### Quarantine and gaps", `\bcode[A-Z]\w+\s+= "(\w+)"`},
		{"../pipeline/ingest", "### Quarantine and gaps", `\bcode[A-Z]\w+\s+= "(\w+)"`},
	} {
		text := section(t, "operations.md", "## When a source stops")
		text = text[strings.Index(text, c.title+"\n")+len(c.title):]
		if end := strings.Index(text, "\n### "); end >= 0 {
			text = text[:end]
		}
		code := goFiles(t, c.root, func(p string) bool { return !isTest(p) })
		found := regexp.MustCompile(c.pattern).FindAllStringSubmatch(code, -1)
		if len(found) == 0 {
			t.Errorf("%s: no codes found by %s", c.root, c.pattern)
		}
		for _, m := range found {
			if !strings.Contains(text, "`"+m[1]+"`") {
				t.Errorf("%s: code %s is not under %q of operations.md", c.root, m[1], c.title)
			}
		}
		for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllStringSubmatch(text, -1) {
			for named := range strings.SplitSeq(m[1], ", ") {
				named = strings.Trim(named, "`")
				all := goFiles(t, "../sources", func(p string) bool { return !isTest(p) }) + goFiles(t, "../pipeline/ingest", func(p string) bool { return !isTest(p) })
				if !strings.Contains(all, `"`+named+`"`) {
					t.Errorf("operations.md explains the code %s, which nothing gives", named)
				}
			}
		}
	}
}

// TestDependenciesHaveTheirReason: every module whose packages the project itself imports stands in
// architecture.md with a reason, and no other does.
func TestDependenciesHaveTheirReason(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{range .Imports}}{{.}}{{"\n"}}{{end}}{{range .TestImports}}{{.}}{{"\n"}}{{end}}{{range .XTestImports}}{{.}}{{"\n"}}{{end}}`, "../...").Output()
	if err != nil {
		t.Fatalf("list imports: %v", err)
	}
	text := section(t, "architecture.md", "## Dependencies")
	var named []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		named = append(named, m[1])
	}
	used := map[string]bool{}
	for imp := range strings.FieldsSeq(string(out)) {
		if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") || strings.HasPrefix(imp, "github.com/leat-cdc/leat") {
			continue
		}
		i := slices.IndexFunc(named, func(n string) bool { return imp == n || strings.HasPrefix(imp, n+"/") })
		if i < 0 {
			t.Errorf("%s is imported, but architecture.md gives no reason for it", imp)
			continue
		}
		used[named[i]] = true
	}
	for _, n := range named {
		if !used[n] {
			t.Errorf("architecture.md has %s as a dependency: nothing imports it", n)
		}
	}
}
