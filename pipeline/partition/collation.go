package partition

import (
	"bytes"
	"strings"
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
)

// textEquality tells how the database compares text of the type. Unknown collations are coarse.
func textEquality(t *schemas.Type) equality {
	name := t.Name
	if i := strings.IndexByte(name, '('); i >= 0 {
		name = name[:i]
	}
	if t.Code == 0 { // PostgreSQL: deterministic collations compare bytewise; others carry their name
		switch {
		case strings.HasSuffix(name, "citext") || t.Collation != "":
			return coarse
		case name == "character" || name == "char" || name == "bpchar":
			return padded
		}
		return bytewise
	}
	switch c := strings.ToLower(t.Collation); {
	case c == "" && t.Charset == "", c == "binary", c == "utf8mb4_0900_bin":
		return bytewise
	case strings.HasSuffix(c, "_nopad_bin"):
		return bytewise
	case strings.HasSuffix(c, "_bin"):
		return padded
	}
	return coarse
}

func trimPad(p []byte) []byte { return bytes.TrimRight(p, " ") }

// appendCoarse appends a key that is equal for all texts that any collation of MySQL, MariaDB or a
// nondeterministic one of PostgreSQL holds equal: accents, case, width, kana and digits of all scripts
// fold together, letters that some language holds equal to others (ß = ss = s, ä = ae = a, ü = y, v = w,
// å = aa, i = j = y, þ = th) too, repeated letters are one, characters beyond U+FFFF are one character (as
// in utf8mb4_general_ci). Never NUL, so it needs no escape. Coarse is right; fine would be wrong.
func appendCoarse(dst, p []byte) []byte {
	if isPlain(p) {
		return appendLetters(dst, trimPad(p))
	}
	return appendLetters(dst, trimPad(norm.NFKD.Bytes(p)))
}

func isPlain(p []byte) bool {
	for _, c := range p {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func appendLetters(dst, p []byte) []byte {
	var last rune = -1
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		p = p[n:]
		if r = fold(r); r < 0 {
			continue
		}
		if r == 'e' && (last == 'a' || last == 'o' || last == 'i') || r == 'h' && last == 't' {
			continue
		}
		if r == last && r != ' ' && !(r >= '0' && r <= '9') {
			continue
		}
		last = r
		dst = utf8.AppendRune(dst, r)
	}
	return dst
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
	case r > 0xFFFF:
		return utf8.RuneError
	case unicode.Is(unicode.M, r) || unicode.Is(unicode.C, r) || unicode.Is(unicode.Sk, r) || unicode.Is(unicode.Lm, r):
		return -1
	case unicode.Is(unicode.Nd, r):
		return '0' + digit(r)
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
