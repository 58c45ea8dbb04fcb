package snapshot

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// Texts of pieces whose meaning is known are refused when, and only when, their brackets do not close.
func TestConditionBrackets(t *testing.T) {
	plain := map[Dialect][]string{
		Postgres: {"a$b", "'('", "')'", "')''('", `"("`, "$$)$$", "$t$ ) $$ ; $t$", "-- )\n", "--)\r\n", "/* ( */", "/**/", "x", "1", " - ", "E')'", "`", "#", `'\('`, "$ä$)$ä$"},
		MySQL:    {"a$b", "'('", "')'", "')''('", `"("`, "`)`", "-- )\n", "# ) \n", "/* ( */", "/**/", "x", "1", " - ", "--x", `'\('`},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for d, pieces := range plain {
		good := 0
		for range 20000 {
			text, depth, low := "", 0, 0
			for range r.IntN(9) {
				switch r.IntN(3) {
				case 0:
					text, depth = text+"(", depth+1
				case 1:
					text, depth = text+")", depth-1
				default:
					text += pieces[r.IntN(len(pieces))]
				}
				low = min(low, depth)
				text += " "
			}
			want, err := depth == 0 && low == 0, CheckCondition(text, d)
			if want != (err == nil) {
				t.Fatalf("%d: %q: %v", d, text, err)
			}
			if want {
				good++
			}
		}
		if good < 1000 {
			t.Errorf("only %d texts were good", good)
		}
	}
	for _, text := range []string{
		"true) union all select 1 where (true", "a; b", "'a", `"a`, "/* ", "/* /* */ */", "/*! ) */", "/*M! ) */", `'\' ) or ('`, "-- \r) or (", "$1", "1$$ ( $$", "$a", "\x00", ";", "'a\\'",
	} {
		for d := range plain {
			if CheckCondition(text, d) == nil {
				t.Errorf("%d: %q is taken", d, text)
			}
		}
	}
	if CheckCondition("$$ ) $$", MySQL) == nil || CheckCondition("`)`", Postgres) == nil || CheckCondition("1 --) \n", MySQL) == nil || CheckCondition("# ) \n", Postgres) == nil {
		t.Error("a quote or comment of the other dialect is taken")
	}
}

// What is taken stays so within brackets, and a bracket behind it is not hidden.
func FuzzCondition(f *testing.F) {
	for _, s := range []string{"", "a = 'x' -- even", "a in (1, 2)", "$t$ ) $t$", "/* x */ true", "`a` # x", "a$b = 1", `"a" like '%\_'`} {
		f.Add(s, "b = ')'")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, d := range []Dialect{Postgres, MySQL} {
			if CheckCondition(a, d) != nil {
				continue
			}
			if CheckCondition("("+a+"\n", d) == nil || CheckCondition(a+"\n)", d) == nil {
				t.Fatalf("%q hides a bracket", a)
			}
			if CheckCondition(b, d) == nil {
				if err := CheckCondition("("+a+"\n) and ("+b+"\n)", d); err != nil {
					t.Fatalf("%q and %q: %v", a, b, err)
				}
			}
			if strings.Count(a, "'") == 0 && strings.Contains(a, "\x00") && !strings.ContainsAny(a, "\"`#-/$") {
				t.Fatalf("%q is taken", a)
			}
		}
	})
}
