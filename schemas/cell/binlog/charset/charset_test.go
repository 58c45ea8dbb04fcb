package charset

import (
	"testing"
	"unicode/utf8"
)

// FuzzOf converts any bytes from every set: what comes out is UTF-8, and longer by a bounded factor.
// That it is what the servers make of the bytes is tested with them, in package binlog.
func FuzzOf(f *testing.F) {
	names := []string{"", "ascii", "ucs2", "utf16", "utf16le", "utf32"}
	for name := range bases {
		names = append(names, name)
	}
	for _, seed := range []string{"", "abc", "\xff\xff\xff\xff", "\x8f\xa1", "\x81\x30\x81\x30", "\xe3\x32\x9a\x35", "\xd8\x00\xdc\x00", "\x00\x10\xff\xff", "\xa1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		raw = raw[:len(raw):len(raw)]
		for _, name := range names {
			convert, err := Of(name)
			if err != nil {
				t.Fatal(err)
			}
			out, err := convert([]byte("x"), raw)
			if err != nil {
				continue
			}
			if !utf8.Valid(out) || out[0] != 'x' || len(out) > 1+3*len(raw) {
				t.Errorf("%s: %x became %x", name, raw, out)
			}
		}
	})
}

func TestUnknown(t *testing.T) {
	if _, err := Of("klingon"); err == nil {
		t.Error("an unknown character set was accepted")
	}
	if _, _, err := Collation(2048 + 21*8); err == nil {
		t.Error("an unknown collation was accepted")
	}
}
