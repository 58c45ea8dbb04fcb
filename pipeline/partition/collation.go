package partition

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/leat-cdc/leat/schemas"
)

type equality uint8

const (
	bytewise equality = iota
	padded            // bytewise, trailing spaces do not count
	coarse            // by a collation that holds different letters equal
	opaque            // by one of which that is not known well enough: all texts are one key
)

// textEquality tells how the database compares text of the type, and in a coarse key what stands for
// characters that do not fold as others do, nil for none.
func textEquality(t *schemas.Type) (equality, *letterSet) {
	if t.Code != 0 {
		return mysqlEquality(t)
	}
	name := t.Name // PostgreSQL: deterministic collations compare bytewise; others carry their name
	if i := strings.IndexByte(name, '('); i >= 0 {
		name = name[:i]
	}
	switch {
	case strings.HasSuffix(name, "citext"):
		return coarse, nil
	case t.Collation != "": // ICU rules may hold any letters equal
		return opaque, nil
	case name == "character" || name == "char" || name == "bpchar":
		return padded, nil
	}
	return bytewise, nil
}

// mysqlEquality is that of MySQL's and MariaDB's collations, by their names.
func mysqlEquality(t *schemas.Type) (equality, *letterSet) {
	if t.Collation == "" && t.Charset == "" {
		return bytewise, nil
	}
	known := *collations.Load()
	c, ok := known[t.Collation]
	if !ok {
		c = collationOf(t.Collation)
		more := maps.Clone(known) // as many as a server has, at most
		more[t.Collation] = c
		collations.Store(&more)
	}
	return c.equality, c.letters
}

type collation struct {
	equality equality
	letters  *letterSet
}

var collations = func() *atomic.Pointer[map[string]collation] {
	p := new(atomic.Pointer[map[string]collation])
	p.Store(&map[string]collation{})
	return p
}()

// unfoldable are collations that hold whole letters or pairs of them equal which appendCoarse keeps apart: u and v,
// m and n, c and ch, signs and letters.
var unfoldable = []string{"_roman_", "_la_0900_", "_hungarian_", "_hu_0900_", "_lithuanian_", "_persian_", "_sinhala_", "_thai_", "_myanmar_",
	"_bulgarian_", "_german2_"}

func collationOf(name string) collation {
	c := strings.ToLower(name)
	switch {
	case c == "binary", c == "utf8mb4_0900_bin", strings.HasSuffix(c, "_nopad_bin"):
		return collation{equality: bytewise}
	case strings.HasSuffix(c, "_bin"):
		return collation{equality: padded}
	case slices.ContainsFunc(unfoldable, func(u string) bool { return strings.Contains(c, u) }):
		return collation{equality: opaque}
	}
	if l := familyLetters(family(c)); l != nil {
		return collation{coarse, l}
	}
	return collation{equality: opaque} // none that was compared
}

// family names the table of letters that a collation follows.
func family(c string) string {
	charset, rest, _ := strings.Cut(c, "_")
	switch {
	case strings.HasPrefix(rest, "uca1400"), strings.Contains(rest, "uca1400_"):
		return "1400"
	case strings.HasPrefix(rest, "sv_0900"): // ę is ä there, e elsewhere
		return "0900sv"
	case strings.Contains(rest, "0900"):
		return "0900"
	case strings.HasPrefix(charset, "utf") || charset == "ucs2":
		switch {
		case strings.HasPrefix(rest, "general_"):
			return "general"
		case strings.Contains(rest, "520"):
			return "520"
		}
		return "400"
	}
	language, _, _ := strings.Cut(rest, "_")
	return charset + "_" + language
}

func trimPad(p []byte) []byte { return bytes.TrimRight(p, " ") }

// appendCoarse appends a key that is equal for all texts that the collation may hold equal: accents, case,
// width, kana and digits of all scripts fold together, letters that some language holds equal to others (ß = ss
// = s, ä = ae = a, ü = y, v = w, å = aa, i = j = y, þ = th) too, repeated letters are one, characters beyond
// U+FFFF are one character (as in utf8mb4_general_ci). special says what else stands for a character, read from
// the databases' own weights. Never NUL, so it needs no escape. Coarse is right; fine would be wrong.
func appendCoarse(dst, p []byte, special *letterSet) []byte {
	start := len(dst)
	w := coarseWriter{dst: dst, last: -1}
	var buf [64]byte
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		one := p[:n]
		p = p[n:]
		if r < utf8.RuneSelf {
			r = fold(r)
			if special == nil || !special.ascii {
				w.put(r)
				continue
			}
		}
		if special != nil && special.flat && r > 0xFFFF {
			w.put(utf8.RuneError)
			continue
		}
		if s, ok := special.of(r); ok {
			for _, r := range s {
				w.put(r)
			}
			continue
		}
		if r < utf8.RuneSelf {
			w.put(r)
			continue
		}
		for d := norm.NFKD.Append(buf[:0], one...); len(d) > 0; {
			r, n := utf8.DecodeRune(d)
			d = d[n:]
			w.put(fold(r))
		}
	}
	n := len(w.dst)
	for n > start && w.dst[n-1] == ' ' {
		n--
	}
	return w.dst[:n]
}

// coarseWriter drops letters that count for nothing behind others.
type coarseWriter struct {
	dst  []byte
	last rune
}

func (w *coarseWriter) put(r rune) {
	switch {
	case r < 0,
		r == 'e' && (w.last == 'a' || w.last == 'o' || w.last == 'i'), r == 'h' && w.last == 't',
		r == w.last && r != ' ' && !(r >= '0' && r <= '9'):
		return
	}
	w.last = r
	w.dst = utf8.AppendRune(w.dst, r)
}

// letters that some collation holds equal to the one that they map to.
var letters = map[rune]rune{
	'j': 'i', 'y': 'i', 'u': 'i', 'w': 'v', 'q': 'k', 'ß': 's', 'ſ': 's', 'æ': 'a', 'œ': 'o', 'ø': 'o', 'ð': 'd', 'đ': 'd', 'ł': 'l', 'þ': 't',
	'ħ': 'h', 'ŧ': 't', 'ŋ': 'n', 'ı': 'i', 'ĸ': 'k', 'ς': 'σ', 'µ': 'μ', 'ё': 'е', 'й': 'и',
}

// fold maps a rune to the representative of its class, -1 when it counts for nothing.
func fold(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z' || r == ' ':
	case r < 0x20 || r == 0x7F:
		return -1
	case r < utf8.RuneSelf:
		r = unicode.ToLower(r)
	case unicode.Is(unicode.M, r) || unicode.Is(unicode.C, r) || unicode.Is(unicode.Sk, r) || unicode.Is(unicode.Lm, r):
		return -1
	case unicode.Is(unicode.Nd, r):
		return '0' + digit(r)
	case r > 0xFFFF:
		return utf8.RuneError
	case unicode.Is(unicode.Zs, r):
		return ' '
	case r >= 0x30A1 && r <= 0x30F6: // katakana → hiragana, small → large
		r -= 0x60
		fallthrough
	case r >= 0x3041 && r <= 0x3096:
		return kana(r)
	default:
		r = unicode.ToLower(unicode.SimpleFold(unicode.ToUpper(r)))
	}
	if m, ok := letters[r]; ok {
		return m
	}
	return r
}

func digit(r rune) rune {
	for d := rune(0); ; d++ { // digits of a script are ten in a row, zero first
		if !unicode.Is(unicode.Nd, r-d-1) || d == 9 {
			return d % 10
		}
	}
}

func kana(r rune) rune {
	const small = "ぁぃぅぇぉっゃゅょゎゕゖ"
	const large = "あいうえおつやゆよわかけ"
	i := 0
	for _, s := range small {
		if s == r {
			return []rune(large)[i]
		}
		i++
	}
	return r
}
