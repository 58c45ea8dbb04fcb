package screen

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "<1ms": 999 * time.Microsecond, "12ms": 12*time.Millisecond + 1, "3.2s": 3299 * time.Millisecond, "8s": 8 * time.Second,
		"59s": 59999 * time.Millisecond, "4m10s": 250 * time.Second, "5m": 5 * time.Minute, "3h12m": 3*time.Hour + 12*time.Minute + 59*time.Second,
		"2d4h": 52 * time.Hour, "-3h": -3 * time.Hour, "-106751d23h": -1 << 63,
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%d) = %q, want %q", d, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range [][2]string{
		{Count(uint64(0)), "0"}, {Count(uint64(999)), "999"}, {Count(uint64(1000)), "1,000"}, {Count(int64(-1234567)), "-1,234,567"}, {Count(^uint64(0)), "18,446,744,073,709,551,615"},
		{Size(0), "0 B"}, {Size(1023), "1023 B"}, {Size(1024), "1.0 KiB"}, {Size(512 << 20), "512 MiB"}, {Size(1023 << 20), "1.0 GiB"}, {Size(^uint64(0)), "16 EiB"},
		{Rate(0), "0/s"}, {Rate(-1), "0/s"}, {Rate(0.25), "0.2/s"}, {Rate(1204.4), "1,204/s"},
		{Time(time.Time{}), ""}, {Time(time.Date(2026, 11, 21, 11, 0, 0, 0, time.FixedZone("", 3600))), "2026-11-21T10:00:00Z"},
		{Shorten("abc", 3), "abc"}, {Shorten("äöüß", 3), "äö…"}, {Shorten("abc", 0), "…"},
	} {
		if c[0] != c[1] {
			t.Errorf("got %q, want %q", c[0], c[1])
		}
	}
}

// FuzzClean: nothing that a terminal acts on passes, and what is harmless passes unchanged.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "plain ü 漢字", "\x1b[2J", "a\tb\nc\r\n", "\xff\xfe", "\u009b31m", "\u202egnp.exe", "\u2028", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		out := Clean(in)
		if !utf8.ValidString(out) {
			t.Fatalf("%q is no UTF-8", out)
		}
		for _, r := range out {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Fatalf("%q passes %q", out, r)
			}
		}
		if again := Clean(out); again != out {
			t.Fatalf("%q cleaned again is %q", out, again)
		}
	})
}

func table() *Table {
	tab := NewTable("NAME", ">COUNT", "WHY")
	tab.Row(Cell{"a", Bold}, Text("1"), Cell{"fine", Green})
	tab.Row(Cell{"läng\x1b", Bold}, Text("12,345"), Cell{"", Red})
	tab.Note(Red, "! see\x1b here")
	return tab
}

func TestTableAligns(t *testing.T) {
	var b strings.Builder
	s := &Screen{w: &b}
	s.Print(table())
	s.Pairs([2]string{"one", "1"}, [2]string{"left out", ""}, [2]string{"three", "3"})
	want := "NAME         COUNT  WHY\n" +
		"a                1  fine\n" +
		"läng\\u001b  12,345  -\n" +
		"  ! see\\u001b here\n" +
		"  one    1\n" +
		"  three  3\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// Colours do not move a column.
func TestColoursAlign(t *testing.T) {
	var plain, painted strings.Builder
	(&Screen{w: &plain}).Print(table())
	(&Screen{w: &painted, Color: true}).Print(table())
	text := painted.String()
	if !strings.Contains(text, "\x1b[32mfine\x1b[0m") {
		t.Errorf("no colour in %q", text)
	}
	for _, style := range []Style{Bold, Red, Green} {
		text = strings.ReplaceAll(text, "\x1b["+string(style)+"m", "")
	}
	if text = strings.ReplaceAll(text, "\x1b[0m", ""); text != plain.String() {
		t.Errorf("without colours\n%s\nplain\n%s", text, plain.String())
	}
}

// On a narrow terminal a table leaves out what it can spare, and only as much as it must.
func TestSpare(t *testing.T) {
	for width, want := range map[int]string{
		0: "A     BB  CCC", 13: "A     BB  CCC", 12: "A     CCC", 9: "A     CCC", 8: "CCC", 2: "CCC",
	} {
		var b strings.Builder
		s := &Screen{w: &b, Width: width}
		tab := NewTable("A", ">BB", "CCC")
		tab.Row(Text("long"), Text("1"), Text("x"))
		tab.Spare("BB", "NONE", "A")
		s.Print(tab)
		if head, _, _ := strings.Cut(b.String(), "\n"); head != want {
			t.Errorf("width %d: %q, want %q", width, head, want)
		}
	}
}

func TestWidth(t *testing.T) {
	for text, want := range map[string]int{"": 0, "abc": 3, "äöü": 3, "日本": 4, "e\u0301": 1, "…": 1, "🙂": 2} {
		if got := Width(text); got != want {
			t.Errorf("Width(%q) = %d, want %d", text, got, want)
		}
	}
	for _, c := range []struct {
		line  string
		width int
		want  string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"ab cd", 4, "ab…"}, {"日本語", 6, "日本語"}, {"日本語", 5, "日本…"}, {"日本語", 4, "日…"},
		{"\x1b[31mabcd\x1b[0m", 4, "\x1b[31mabcd\x1b[0m"}, {"\x1b[31mabcd\x1b[0m", 3, "\x1b[31mab…\x1b[0m"}, {"\x1b[1mab\x1b[0mcd", 3, "\x1b[1mab\x1b[0m…"}, {"a", 0, "…"},
	} {
		if got := Clip(c.line, c.width); got != c.want {
			t.Errorf("Clip(%q, %d) = %q, want %q", c.line, c.width, got, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text string
		want string
	}{{"", ""}, {"one two", "one two"}, {"one two three", "one two|three"}, {"abcdefghijkl m", "abcdefg…|m"}} {
		if got := strings.Join(Wrap(c.text, 8), "|"); got != c.want {
			t.Errorf("Wrap(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}
