package mysql

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// However a name is written, it is the one that the PREPARE's event has.
func TestXANamesHaveOneForm(t *testing.T) {
	quote := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'" }
	forms := map[string]func(string) string{
		"X'hex'": func(s string) string { return "X'" + strings.ToUpper(hex.EncodeToString([]byte(s))) + "'" },
		"x'hex'": func(s string) string { return "x'" + hex.EncodeToString([]byte(s)) + "'" },
		"text":   quote,
		"double": func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` },
		"0xhex":  func(s string) string { return "0x" + hex.EncodeToString([]byte(s)) },
	}
	rapid.Check(t, func(t *rapid.T) {
		gtrid := string(rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "gtrid"))
		bqual := string(rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "bqual"))
		format := rapid.IntRange(0, 1<<31-1).Draw(t, "format")
		of := func(label string) func(string) string {
			return forms[rapid.SampledFrom([]string{"X'hex'", "x'hex'", "text", "double", "0xhex"}).Draw(t, label)]
		}
		verb := rapid.SampledFrom([]string{"XA COMMIT ", "xa rollback\t", "XA COMMIT/* late */"}).Draw(t, "verb")
		end := rapid.SampledFrom([]string{"", ";", " ONE PHASE", " -- done"}).Draw(t, "end")
		first, second := of("first")(gtrid), of("second")(bqual)
		g, b := hex.EncodeToString([]byte(gtrid)), hex.EncodeToString([]byte(bqual))
		for text, want := range map[string]string{
			fmt.Sprintf("%s%s,%s,%d%s", verb, first, second, format, end):     nameXA(g, b, format),
			fmt.Sprintf("%s%s , %s, %#x%s", verb, first, second, format, end): nameXA(g, b, format),
			verb + first + "," + second + end:                                 nameXA(g, b, 1),
			verb + first + end:                                                nameXA(g, "", 1),
		} {
			if got := xidOf(text); got != want {
				t.Fatalf("%q is %s, want %s", text, got, want)
			}
		}
	})
	for _, none := range []string{"", "XA COMMIT", "XA COMMIT 'open", "XA COMMIT 'a','b',many"} {
		if got := xidOf(none); got != "" && none != "XA COMMIT 'a','b',many" {
			t.Errorf("%q: %s", none, got)
		}
	}
}

func FuzzXAName(f *testing.F) {
	f.Add("XA COMMIT X'6162',X'',1")
	f.Add(`xa rollback "a\"b", 0x41, 0x7`)
	f.Fuzz(func(t *testing.T, text string) {
		if name := xidOf(text); strings.Trim(name, "0123456789abcdef-") != "" {
			t.Errorf("%q gives %q, which a position cannot hold", text, name)
		}
	})
}
