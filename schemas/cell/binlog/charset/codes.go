package charset

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

// charsetPatches has a line "set first last rune" (hexadecimal) for each stretch of codes that the
// servers read differently than the set's base below; a rune of 0 means that they refuse the code.
// MySQL and MariaDB agree on all of them; a test asks both for every code.
//
//go:embed charsets.txt
var charsetPatches string

// bases are the nearest relatives that golang.org/x/text knows; nil is ASCII.
var bases = map[string]encoding.Encoding{
	"big5": traditionalchinese.Big5, "gbk": simplifiedchinese.GBK, "gb2312": simplifiedchinese.GBK, "gb18030": simplifiedchinese.GB18030,
	"euckr": korean.EUCKR, "sjis": japanese.ShiftJIS, "cp932": japanese.ShiftJIS, "ujis": japanese.EUCJP, "eucjpms": japanese.EUCJP,
	"latin1": charmap.Windows1252, "latin2": charmap.ISO8859_2, "latin5": charmap.ISO8859_9, "latin7": charmap.ISO8859_13,
	"greek": charmap.ISO8859_7, "hebrew": charmap.ISO8859_8, "cp1250": charmap.Windows1250, "cp1251": charmap.Windows1251,
	"cp1256": charmap.Windows1256, "cp1257": charmap.Windows1257, "cp850": charmap.CodePage850, "cp852": charmap.CodePage852,
	"cp866": charmap.CodePage866, "koi8r": charmap.KOI8R, "koi8u": charmap.KOI8U, "macroman": charmap.Macintosh, "tis620": charmap.Windows874,
	"dec8": nil, "hp8": nil, "swe7": nil, "armscii8": nil, "keybcs2": nil, "macce": nil, "geostd8": nil,
}

// codes has the runes of a character set's codes: of one byte; of two, the first of them from 0x80; of
// three that begin with 0x8f; of four in GB18030's Basic Multilingual Plane. 0 (in single: -1) = none.
type codes struct {
	single [256]rune
	ascii  bool // codes below 0x80 are ASCII's
	double []uint16
	triple []uint16
	quad   []uint16
}

const (
	lead3 = 0x8f // begins the three bytes of EUC's second plane
	// quads of GB18030 count in mixed base; those from quadHigh are U+10000 onward.
	quads    = 39420
	quadHigh = (0x90 - 0x81) * 10 * 126 * 10
)

var (
	codesMu   sync.Mutex
	codesDone = map[string]*codes{}
)

// codesOf builds a character set's table at its first use: 0.1 to 20 ms.
func codesOf(charset string) (*codes, error) {
	base, ok := bases[charset]
	if !ok {
		return nil, fmt.Errorf("character set %s is not known to this version", charset)
	}
	codesMu.Lock()
	defer codesMu.Unlock()
	c := codesDone[charset]
	if c == nil {
		c = &codes{}
		c.fill(charset, base)
		c.patch(charset)
		c.ascii = true
		for i, r := range c.single[:utf8.RuneSelf] {
			c.ascii = c.ascii && r == rune(i)
		}
		codesDone[charset] = c
	}
	return c, nil
}

func (c *codes) fill(charset string, base encoding.Encoding) {
	for i := range c.single {
		c.single[i] = -1
	}
	if base == nil {
		for i := range utf8.RuneSelf {
			c.single[i] = rune(i)
		}
		return
	}
	d := base.NewDecoder()
	var out [16]byte
	rune1 := func(code ...byte) (rune, bool) {
		n, _, err := d.Transform(out[:], code, true)
		r, size := utf8.DecodeRune(out[:n])
		return r, err == nil && n > 0 && size == n && r != utf8.RuneError
	}
	for i := range c.single {
		if r, ok := rune1(byte(i)); ok {
			c.single[i] = r
		}
	}
	if _, ok := base.(*charmap.Charmap); ok {
		return
	}
	c.double = make([]uint16, 0x8000)
	for i := range c.double {
		if r, ok := rune1(byte(i>>8)|0x80, byte(i)); ok && r <= 0xffff {
			c.double[i] = uint16(r)
		}
	}
	switch charset {
	case "ujis", "eucjpms":
		c.triple = make([]uint16, 0x8000)
		for i := range c.triple {
			if r, ok := rune1(lead3, byte(i>>8)|0x80, byte(i)); ok {
				c.triple[i] = uint16(r)
			}
		}
	case "gb18030":
		c.quad = make([]uint16, quads)
		for i := range c.quad {
			if r, ok := rune1(0x81+byte(i/12600), 0x30+byte(i/1260%10), 0x81+byte(i/10%126), 0x30+byte(i%10)); ok {
				c.quad[i] = uint16(r)
			}
		}
	}
}

func (c *codes) patch(charset string) {
	for line := range strings.Lines(charsetPatches) {
		f := strings.Fields(line)
		if f[0] != charset {
			continue
		}
		var n [3]int
		for i := range n {
			x, err := strconv.ParseUint(f[i+1], 16, 32)
			if err != nil {
				continue
			}
			n[i] = int(x)
		}
		for code := n[0]; code <= n[1]; code++ {
			r := n[2]
			if r > 0 {
				r += code - n[0]
			}
			switch {
			case code > 0xffffff:
				c.quad[quadIndex(byte(code>>24), byte(code>>16), byte(code>>8), byte(code))] = uint16(r)
			case code > 0xffff:
				c.triple[code&0x7fff] = uint16(r)
			case code > 0xff:
				c.double[code&0x7fff] = uint16(r)
			case r == 0:
				c.single[code] = -1
			default:
				c.single[code] = rune(r)
			}
		}
	}
}

// quadIndex counts GB18030's codes of four bytes.
func quadIndex(a, b, c, d byte) int {
	return ((int(a-0x81)*10+int(b-0x30))*126+int(c-0x81))*10 + int(d-0x30)
}

func (c *codes) decode(dst, raw []byte) ([]byte, error) {
	for i := 0; i < len(raw); {
		if c.ascii && raw[i] < utf8.RuneSelf {
			n := asciiLen(raw[i:])
			dst = append(dst, raw[i:i+n]...)
			i += n
			continue
		}
		if r := c.single[raw[i]]; r >= 0 {
			dst = utf8.AppendRune(dst, r)
			i++
			continue
		}
		r, n := c.long(raw[i:])
		if n == 0 {
			return dst, ErrText
		}
		dst = utf8.AppendRune(dst, r)
		i += n
	}
	return dst, nil
}

// long reads a code of several bytes; n is 0 when there is none.
func (c *codes) long(b []byte) (r rune, n int) {
	if len(b) < 2 || c.double == nil || b[0] < 0x80 {
		return 0, 0
	}
	if r := c.double[(int(b[0])<<8|int(b[1]))&0x7fff]; r != 0 {
		return rune(r), 2
	}
	if c.triple != nil && b[0] == lead3 && len(b) >= 3 && b[1] >= 0x80 {
		if r := c.triple[(int(b[1])<<8|int(b[2]))&0x7fff]; r != 0 {
			return rune(r), 3
		}
	}
	if c.quad == nil || len(b) < 4 || b[0] < 0x81 || b[0] > 0xfe || b[1]-0x30 > 9 || b[2] < 0x81 || b[2] > 0xfe || b[3]-0x30 > 9 {
		return 0, 0
	}
	switch i := quadIndex(b[0], b[1], b[2], b[3]); {
	case i < quads && c.quad[i] != 0:
		return rune(c.quad[i]), 4
	case i >= quadHigh && i-quadHigh <= utf8.MaxRune-0x10000:
		return rune(0x10000 + i - quadHigh), 4
	}
	return 0, 0
}
