package lint

import (
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/leat-cdc/leat/"

type pkg struct {
	ImportPath, Name string
	Imports          []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("only %d packages found", len(all))
	}
	return all
}

// under reports whether the package lies in the folder; "x/." is x alone.
func under(p, folder string) bool {
	if f, self := strings.CutSuffix(folder, "/."); self {
		return p == f
	}
	return p == folder || strings.HasPrefix(p, folder+"/")
}

func ruleOf(rules []Rule, p string) *Rule {
	var best *Rule
	for i := range rules {
		if r := &rules[i]; under(p, r.Of) && (best == nil || len(r.Of) > len(best.Of)) {
			best = r
		}
	}
	return best
}

// own is the folder that a package may import from without asking: the part (pipeline/record) that it
// stands in.
func own(p string) string {
	parts := strings.SplitN(p, "/", 3)
	if len(parts) < 2 {
		return "no folder"
	}
	return parts[0] + "/" + parts[1]
}

// breaches lists what is wrong with one package.
func breaches(p pkg) []string {
	var bad []string
	rule := ruleOf(Policy, p.ImportPath)
	if rule == nil {
		return []string{p.ImportPath + ": no rule says what it may import"}
	}
	for _, imp := range p.Imports {
		in, ours := strings.CutPrefix(imp, module)
		if !ours {
			for folder, prefixes := range Banned {
				if under(p.ImportPath, folder) && slices.ContainsFunc(prefixes, func(b string) bool { return strings.HasPrefix(imp, b) }) {
					bad = append(bad, p.ImportPath+" imports "+imp+", which has no place in "+folder)
				}
			}
			continue
		}
		if !under(in, own(p.ImportPath)) && !slices.ContainsFunc(rule.May, func(m string) bool { return under(in, m) }) {
			bad = append(bad, p.ImportPath+" imports "+in+": "+rule.Why)
		}
		for folder, who := range Only {
			if under(in, folder) && !under(p.ImportPath, folder) && !slices.ContainsFunc(who, func(w string) bool { return under(p.ImportPath, w) }) {
				bad = append(bad, p.ImportPath+" imports "+in+", which only "+strings.Join(who, ", ")+" may")
			}
		}
	}
	if within := ruleOf(Within, p.ImportPath); within != nil {
		for _, imp := range p.Imports {
			in, ours := strings.CutPrefix(imp, module)
			if ours && under(in, own(p.ImportPath)) && !under(in, p.ImportPath) && !slices.ContainsFunc(within.May, func(m string) bool { return under(in, m) }) {
				bad = append(bad, p.ImportPath+" imports "+in+": "+within.Why)
			}
		}
	}
	if slices.Contains(BannedNames, path.Base(p.ImportPath)) {
		bad = append(bad, p.ImportPath+": the name says nothing")
	}
	return bad
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		for _, b := range breaches(p) {
			t.Error(b)
		}
	}
}

func TestThePolicyCatches(t *testing.T) {
	for _, p := range []pkg{
		{ImportPath: "schemas", Imports: []string{module + "pipeline"}},
		{ImportPath: "schemas", Imports: []string{"github.com/google/uuid"}},
		{ImportPath: "pipeline", Imports: []string{module + "pipeline/record"}},
		{ImportPath: "pipeline/ingest", Imports: []string{module + "pipeline/deliver"}},
		{ImportPath: "pipeline/disklog", Imports: []string{"github.com/prometheus/client_golang/prometheus"}},
		{ImportPath: "sources/mysql", Imports: []string{module + "sources/postgres"}},
		{ImportPath: "sources/mysql", Imports: []string{module + "pipeline/disklog"}},
		{ImportPath: "sinks/file", Imports: []string{module + "sinks/webhook"}},
		{ImportPath: "sinks/file", Imports: []string{module + "pipeline/engine"}},
		{ImportPath: "cmd/leat/internal/cli/shell", Imports: []string{module + "cmd/leat/internal/cli/status"}},
		{ImportPath: "cmd/leat/internal/cli/parks", Imports: []string{module + "cmd/leat/internal/app"}},
		{ImportPath: "pipeline/util"},
		{ImportPath: "elsewhere"},
	} {
		if len(breaches(p)) == 0 {
			t.Errorf("%s importing %v passes", p.ImportPath, p.Imports)
		}
	}
}
