package partition

import (
	_ "embed"
	"strings"
	"sync"
	"unicode/utf8"
)

// letterTable has a line for each family of collations: its name, then for each character that does not fold as
// the others do a tab, the character and what stands for it. It is made from the weights that MySQL
// and MariaDB themselves give (go test -run TestCollations -write-letters).
//
//go:embed letters.txt
var letterTable string

// letterSet is what stands for the characters of one family that do not fold as others do.
type letterSet struct {
	special map[rune]string
	ascii   bool // ASCII characters are among them
	flat    bool // characters beyond U+FFFF are all one
}

func (l *letterSet) of(r rune) (string, bool) {
	if l == nil {
		return "", false
	}
	s, ok := l.special[r]
	return s, ok
}

var allLetters = sync.OnceValue(func() map[string]*letterSet {
	all := map[string]*letterSet{}
	for line := range strings.Lines(letterTable) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		l := &letterSet{special: make(map[rune]string, len(fields)), flat: fields[0] == "general" || fields[0] == "400"}
		for _, f := range fields[1:] {
			r, n := utf8.DecodeRuneInString(f)
			l.special[r] = f[n:]
			l.ascii = l.ascii || r < utf8.RuneSelf
		}
		all[fields[0]] = l
	}
	return all
})

// familyLetters returns nil for a family that was not compared with a database.
func familyLetters(family string) *letterSet { return allLetters()[family] }
