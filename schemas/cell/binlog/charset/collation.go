package charset

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// collationList has a line "id name" for each collation of MySQL 9.7 and MariaDB 10.11 but the uca1400
// family; where both use an id, MySQL's name.
//
//go:embed collations.txt
var collationList string

var collations = sync.OnceValue(func() map[uint64]string {
	m := make(map[uint64]string, 512)
	for line := range strings.Lines(collationList) {
		id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(id, 10, 64); err == nil {
			m[n] = name
		}
	}
	return m
})

// MariaDB numbers its uca1400 family: 2048 + 256 × character set + 8 × tailoring + 4 × nopad +
// 2 × accent-sensitive + case-sensitive.
const firstUCA1400 = 2048

var (
	uca1400Charsets   = [...]string{"utf8mb3", "utf8mb4", "ucs2", "utf16", "utf32"}
	uca1400Tailorings = [...]string{
		"", "icelandic_", "latvian_", "romanian_", "slovenian_", "polish_", "estonian_", "spanish_", "swedish_", "turkish_", "czech_",
		"danish_", "lithuanian_", "slovak_", "spanish2_", "roman_", "persian_", "esperanto_", "hungarian_", "sinhala_", "german2_",
		"", "", "vietnamese_", "croatian_",
	}
	uca1400Flags = [...]string{"ai_ci", "ai_cs", "as_ci", "as_cs", "nopad_ai_ci", "nopad_ai_cs", "nopad_as_ci", "nopad_as_cs"}
)

// Collation returns the name of the collation with an id of MySQL's or MariaDB's, and its character
// set (both "binary" for 63).
func Collation(id uint64) (name, charset string, err error) {
	if id >= firstUCA1400 {
		n := id - firstUCA1400
		c, t, f := n>>8, n>>3&31, n&7
		if c < uint64(len(uca1400Charsets)) && t < uint64(len(uca1400Tailorings)) && (t == 0 || uca1400Tailorings[t] != "") {
			charset = uca1400Charsets[c]
			return charset + "_uca1400_" + uca1400Tailorings[t] + uca1400Flags[f], charset, nil
		}
	}
	name, ok := collations()[id]
	if !ok {
		return "", "", fmt.Errorf("collation %d is not known to this version", id)
	}
	charset, _, _ = strings.Cut(name, "_")
	return name, charset, nil
}
