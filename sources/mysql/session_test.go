package mysql

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestEachVariableLookedAtIsAskedFor: one that is not in the list would look as if the server did not know it.
func TestEachVariableLookedAtIsAskedFor(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	look := regexp.MustCompile(`\b(?:m|vars)\["([a-z_]+)"\]|\bname(?:, sql)? :?= "(log_[a-z_]+_updates)"`)
	found := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range look.FindAllStringSubmatch(string(text), -1) {
			found++
			if v := m[1] + m[2]; !slices.Contains(variables, v) {
				t.Errorf("%s looks at %s", name, v)
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d looks found: the pattern is out of date", found)
	}
}
