package partition

import (
	"bytes"

	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

func enc(t testing.TB, v cell.Value, ty schemas.Type) []byte {
	t.Helper()
	b, err := AppendValue(nil, &v, &ty)
	if err != nil {
		t.Fatalf("encode %v: %v", v, err)
	}
	return b
}

func sign(n int) int { return max(-1, min(1, n)) }

func TestIntegersKeepTheirOrder(t *testing.T) {
	gen := rapid.Custom(func(t *rapid.T) *big.Int {
		if rapid.Bool().Draw(t, "unsigned") {
			return new(big.Int).SetUint64(rapid.Uint64().Draw(t, "u"))
		}
		return big.NewInt(rapid.OneOf(rapid.Int64(), rapid.Int64Range(-300, 300), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64})).Draw(t, "i"))
	})
	val := func(n *big.Int) cell.Value {
		if n.IsUint64() {
			return cell.Value{Kind: schemas.KindUint, N: n.Uint64()}
		}
		return cell.Value{Kind: schemas.KindInt, N: uint64(n.Int64())}
	}
	rapid.Check(t, func(rt *rapid.T) {
		all := rapid.SliceOfN(gen, 8, 8).Draw(rt, "all") // every two: few pairs are near each other
		for i, a := range all {
			for _, b := range all[:i] {
				if got := bytes.Compare(enc(t, val(a), schemas.Type{}), enc(t, val(b), schemas.Type{})); got != a.Cmp(b) {
					rt.Fatalf("%v vs %v: %d", a, b, got)
				}
			}
		}
	})
}

func TestDecimalsKeepTheirOrder(t *testing.T) {
	gen := rapid.StringMatching(`-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,8})?`)
	ty := schemas.Type{Kind: schemas.KindDecimal}
	rapid.Check(t, func(rt *rapid.T) {
		a, b := gen.Draw(rt, "a"), gen.Draw(rt, "b")
		ra, _ := new(big.Rat).SetString(a)
		rb, _ := new(big.Rat).SetString(b)
		va, vb := cell.Value{Kind: schemas.KindDecimal, B: []byte(a)}, cell.Value{Kind: schemas.KindDecimal, B: []byte(b)}
		if got := bytes.Compare(enc(t, va, ty), enc(t, vb, ty)); got != ra.Cmp(rb) {
			rt.Fatalf("%s vs %s: %d", a, b, got)
		}
	})
	order := []string{"-Infinity", "-1e", "0", "0.5", "Infinity", "NaN"}
	order[1] = "-1"
	for i := 1; i < len(order); i++ {
		va, vb := cell.Value{Kind: schemas.KindDecimal, B: []byte(order[i-1])}, cell.Value{Kind: schemas.KindDecimal, B: []byte(order[i])}
		if bytes.Compare(enc(t, va, ty), enc(t, vb, ty)) >= 0 {
			t.Errorf("%s is not below %s", order[i-1], order[i])
		}
	}
}

func TestFloatsKeepTheirOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := rapid.Float64().Draw(rt, "a"), rapid.Float64().Draw(rt, "b")
		var va, vb cell.Value
		va.SetFloat(a, 64)
		vb.SetFloat(b, 64)
		want := 0
		if a < b {
			want = -1
		} else if a > b {
			want = 1
		}
		if got := bytes.Compare(enc(t, va, schemas.Type{}), enc(t, vb, schemas.Type{})); got != want {
			rt.Fatalf("%v vs %v: %d", a, b, got)
		}
	})
}

func TestTuplesKeepTheirOrder(t *testing.T) {
	ty := schemas.Type{Kind: schemas.KindText, Name: "text"}
	tuple := func(parts []string) []byte {
		var b []byte
		for _, p := range parts {
			v := cell.Value{Kind: schemas.KindText, B: []byte(p)}
			b, _ = AppendValue(b, &v, &ty)
		}
		return b
	}
	compare := func(a, b []string) int {
		for i := range a {
			if c := strings.Compare(a[i], b[i]); c != 0 {
				return c
			}
		}
		return 0
	}
	gen := rapid.SliceOfN(rapid.StringOf(rapid.SampledFrom([]rune{0, 1, 'a', 'b', 0x10FFFF})), 2, 2)
	rapid.Check(t, func(rt *rapid.T) {
		a, b := gen.Draw(rt, "a"), gen.Draw(rt, "b")
		if got := sign(bytes.Compare(tuple(a), tuple(b))); got != compare(a, b) {
			rt.Fatalf("%q vs %q: %d", a, b, got)
		}
	})
}

func TestCoarseTextHoldsEqualWhatACollationMay(t *testing.T) {
	ci := schemas.Type{Kind: schemas.KindText, Code: 15, Collation: "utf8mb4_0900_ai_ci"}
	for _, same := range [][]string{
		{"straße", "STRASSE", "strasse", "strase"}, {"Müller", "mueller", "muller", "MÜLLER  ", "myller"}, {"å", "aa", "A", "Å"},
		{"カ", "か", "ｶ"}, {"١", "1", "１", "①"}, {"ÆØ", "aeo", "äö"}, {"\U0001F600", "\U0001F601"}, {"a\u0301", "á"}, {"v", "W"}, {"Þor", "thor"}, {"a", "a \u0301", "a\u00a0"}, {"", "\u00ad "}, {"5", "➄"},
	} {
		first := enc(t, cell.Value{Kind: schemas.KindText, B: []byte(same[0])}, ci)
		for _, s := range same[1:] {
			if got := enc(t, cell.Value{Kind: schemas.KindText, B: []byte(s)}, ci); !bytes.Equal(got, first) {
				t.Errorf("%q and %q encode differently: %x %x", same[0], s, first, got)
			}
		}
	}
	if a, b := enc(t, cell.Value{Kind: schemas.KindText, B: []byte("1")}, ci), enc(t, cell.Value{Kind: schemas.KindText, B: []byte("11")}, ci); bytes.Equal(a, b) {
		t.Error("1 and 11 are one key")
	}
}

func TestEqualityByType(t *testing.T) {
	for _, c := range []struct {
		ty   schemas.Type
		same bool
		a, b string
	}{
		{schemas.Type{Name: "text"}, false, "a", "A"},
		{schemas.Type{Name: "text"}, false, "a", "a "},
		{schemas.Type{Name: "character(5)"}, true, "a", "a    "},
		{schemas.Type{Name: "text", Collation: "und-x-icu-level1"}, true, "a-b", "ab"}, // and whatever else its rules say
		{schemas.Type{Name: "varchar(5)", Code: 15, Charset: "utf8mb4", Collation: "utf8mb4_roman_ci"}, true, "uv", "vu"},
		{schemas.Type{Name: "varchar(5)", Code: 15, Charset: "utf8mb4", Collation: "utf8mb4_0900_as_cs"}, false, "a", "b"},
		{schemas.Type{Name: "varchar(5)", Code: 15, Charset: "latin1", Collation: "latin1_swedish_ci"}, true, "Å", "["},
		{schemas.Type{Name: "citext"}, true, "a", "A"},
		{schemas.Type{Name: "public.citext"}, true, "a", "A"},
		{schemas.Type{Name: "varchar(5)", Code: 15, Charset: "utf8mb4", Collation: "utf8mb4_bin"}, true, "a", "a "},
		{schemas.Type{Name: "varchar(5)", Code: 15, Charset: "utf8mb4", Collation: "utf8mb4_bin"}, false, "a", "A"},
		{schemas.Type{Name: "varchar(5)", Code: 15, Charset: "utf8mb4", Collation: "utf8mb4_0900_bin"}, false, "a", "a "},
		{schemas.Type{Name: "varchar(5)", Code: 15, Charset: "latin1"}, true, "a", "A"},
	} {
		a := enc(t, cell.Value{Kind: schemas.KindText, B: []byte(c.a)}, c.ty)
		b := enc(t, cell.Value{Kind: schemas.KindText, B: []byte(c.b)}, c.ty)
		if bytes.Equal(a, b) != c.same {
			t.Errorf("%s %s: %q and %q: same = %v, want %v", c.ty.Name, c.ty.Collation, c.a, c.b, !c.same, c.same)
		}
	}
}

// TestSpellingsOfANumberAreOneKey, and equal keys of two key spaces do not meet.
func TestSpellingsOfANumberAreOneKey(t *testing.T) {
	ty := schemas.Type{Kind: schemas.KindDecimal}
	dec := func(s string) string { return string(enc(t, cell.Value{Kind: schemas.KindDecimal, B: []byte(s)}, ty)) }
	for _, same := range [][]string{{"1", "1.0", "1.00", "+1"}, {"0", "-0", "0.000", "-0.0"}, {"-120", "-120.0"}, {"0.05", "0.050"}, {"NaN", "nan"}} {
		for _, s := range same[1:] {
			if dec(s) != dec(same[0]) {
				t.Errorf("%s and %s differ", s, same[0])
			}
		}
	}
	var zero, negative cell.Value
	zero.SetFloat(0, 64)
	negative.SetFloat(math.Copysign(0, -1), 64)
	if !bytes.Equal(enc(t, zero, schemas.Type{}), enc(t, negative, schemas.Type{})) {
		t.Error("0 and -0 differ")
	}
	key := []byte(dec("7"))
	if Hash(SpaceHash("a"), key) == Hash(SpaceHash("b"), key) {
		t.Error("a key has one hash in two key spaces")
	}
}

func TestCharactersBeyondTheBMPAreOneInOldCollations(t *testing.T) {
	for collation, same := range map[string]bool{"utf8mb4_general_ci": true, "utf8mb4_unicode_ci": true, "utf8mb4_0900_ai_ci": false} {
		ty := schemas.Type{Kind: schemas.KindText, Code: 15, Collation: collation}
		a := enc(t, cell.Value{Kind: schemas.KindText, B: []byte("\U0001D401")}, ty)
		b := enc(t, cell.Value{Kind: schemas.KindText, B: []byte("\U0001F600")}, ty)
		if bytes.Equal(a, b) != same {
			t.Errorf("%s: same = %v", collation, !same)
		}
	}
}

func TestAbsentCannotBeRouted(t *testing.T) {
	if _, err := AppendValue(nil, &cell.Value{State: cell.Absent}, &schemas.Type{}); err != ErrAbsent {
		t.Fatalf("got %v", err)
	}
}

func FuzzAppendValue(f *testing.F) {
	f.Add([]byte("-12.50"), uint8(schemas.KindDecimal), "utf8mb4_general_ci")
	f.Add([]byte("\xff\x00ß"), uint8(schemas.KindText), "latin1_german2_ci")
	f.Fuzz(func(t *testing.T, p []byte, kind uint8, collation string) {
		v := cell.Value{Kind: schemas.Kind(kind % 16), B: p, N: uint64(len(p))}
		ty := schemas.Type{Kind: v.Kind, Code: 15, Collation: collation}
		a, err := AppendValue(nil, &v, &ty)
		if err != nil || len(a) == 0 {
			t.Fatalf("%v %v", a, err)
		}
	})
}

func BenchmarkInt(b *testing.B) {
	v := cell.Value{Kind: schemas.KindInt, N: 123456}
	ty := schemas.Type{Kind: schemas.KindInt}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = AppendValue(buf[:0], &v, &ty)
		_ = Hash(1, buf)
	}

}
