package binlog_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

func integerCase(name string, bits int) []typeCase {
	lo, hi := int64(-1)<<(bits-1), int64(1)<<(bits-1)-1
	most := uint64(math.MaxUint64) >> (64 - bits)
	return []typeCase{
		{
			sql: name, kind: schemas.KindInt, values: []string{fmt.Sprint(lo), fmt.Sprint(hi), "0", "-1", "1"},
			random: func(r *rand.Rand) string { return fmt.Sprint(int64(r.Uint64()) >> (64 - bits)) },
		},
		{
			sql: name + " unsigned", kind: schemas.KindUint, values: []string{"0", fmt.Sprint(most), fmt.Sprint(hi), fmt.Sprint(uint64(hi) + 1)},
			random: func(r *rand.Rand) string { return fmt.Sprint(r.Uint64() >> (64 - bits)) },
		},
	}
}

func decimalCase(precision, scale int) typeCase {
	nines := strings.Repeat("9", precision-scale) + "." + strings.Repeat("9", scale)
	return typeCase{
		sql: fmt.Sprintf("decimal(%d,%d)", precision, scale), kind: schemas.KindDecimal,
		values: []string{"0", nines, "-" + nines, "0.1", "-0.1", "1", "-1", "1e-10", "-1e-10"},
		random: func(r *rand.Rand) string {
			n := 1 + r.IntN(max(precision-scale, 1))
			return strings.Repeat("-", r.IntN(2)) + digits(r, n) + "." + digits(r, 1+r.IntN(scale+1))
		},
	}
}

func digits(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0' + byte(r.IntN(10))
	}
	return string(b)
}

func numberCases() []typeCase {
	list := integerCase("tinyint", 8)
	for name, bits := range map[string]int{"smallint": 16, "mediumint": 24, "int": 32, "bigint": 64} {
		list = append(list, integerCase(name, bits)...)
	}
	for _, d := range [][2]int{{1, 0}, {1, 1}, {5, 2}, {9, 0}, {10, 0}, {10, 9}, {18, 9}, {19, 10}, {30, 30}, {38, 19}, {65, 0}, {65, 30}} {
		list = append(list, decimalCase(d[0], d[1]))
	}
	for _, n := range []int{2, 7, 8, 9, 16, 31, 63, 64} {
		list = append(list, typeCase{
			sql: fmt.Sprintf("bit(%d)", n), kind: schemas.KindBits, show: fmt.Sprintf("lpad(bin(v),%d,'0')", n),
			values: []string{"0", "1", "b'" + strings.Repeat("1", n) + "'", "b'1" + strings.Repeat("0", n-1) + "'"},
			random: func(r *rand.Rand) string { return fmt.Sprintf("b'%b'", r.Uint64()>>(64-n)) }, count: 30,
		})
	}
	randomFloat := func(size int) func(*rand.Rand) string {
		return func(r *rand.Rand) string {
			f := math.Float64frombits(r.Uint64())
			if size == 32 {
				f = float64(math.Float32frombits(r.Uint32()))
			}
			if math.IsNaN(f) || math.IsInf(f, 0) {
				f = 0
			}
			return strconv.FormatFloat(f, 'e', -1, size)
		}
	}
	return append(list,
		typeCase{sql: "tinyint(1)", name: "tinyint", kind: schemas.KindInt, values: []string{"true", "false", "-1", "127"}},
		typeCase{sql: "bool", name: "tinyint", kind: schemas.KindInt, values: []string{"true", "false"}},
		typeCase{sql: "integer zerofill", name: "int unsigned", kind: schemas.KindUint, show: plus0, values: []string{"0", "42"}},
		typeCase{sql: "decimal(10,3) unsigned", kind: schemas.KindDecimal, values: []string{"0", "1.5", "9999999.999"}},
		typeCase{sql: "bit", name: "bit(1)", kind: schemas.KindBool, show: plus0, values: []string{"0", "1"}},
		typeCase{sql: "year", kind: schemas.KindUint, show: plus0, values: []string{"0", "1901", "2155", "2026", "'70'", "'69'"}},
		typeCase{sql: "float", kind: schemas.KindFloat, show: "cast(v as double)", values: []string{"0", "-0e0", "0.1", "3.4e38", "-1e-45", "1.17549435e-38"}, random: randomFloat(32)},
		typeCase{sql: "double", kind: schemas.KindFloat, show: "v", values: []string{"0", "0.1", "1.7976931348623157e308", "5e-324", "-2.5"}, random: randomFloat(64)},
		typeCase{sql: "float unsigned", kind: schemas.KindFloat, show: "cast(v as double)", values: []string{"0", "1.5"}},
		typeCase{sql: "real", name: "double", kind: schemas.KindFloat, show: "v", values: []string{"1.5"}},
		typeCase{sql: "float(7,3)", name: "float", kind: schemas.KindFloat, show: "cast(v as double)", values: []string{"1.5", "1234.567"}},
	)
}

func temporalCases() []typeCase {
	list := []typeCase{{
		sql: "date", kind: schemas.KindDate,
		values: []string{
			"'0000-00-00'", "'2026-00-00'", "'2026-11-00'", "'0000-01-01'", "'0001-01-01'", "'1000-01-01'", "'9999-12-31'", "'1969-12-31'", "'1970-01-01'", "'2024-02-29'",
			"'2023-02-29'", "'2021-02-31'", "'2021-04-31'", "'1900-03-01'", "'2000-02-29'", "'69-01-02'", "'70-01-02'",
		},
		random: func(r *rand.Rand) string {
			return fmt.Sprintf("'%04d-%02d-%02d'", r.IntN(10000), r.IntN(13), r.IntN(32))
		}, count: 3000,
	}}
	for d := range 7 {
		list = append(list, clockCases(d, "("+strconv.Itoa(d)+")")...)
	}
	return list
}

func clockCases(d int, suffix string) []typeCase {
	if d == 0 {
		suffix = ""
	}
	frac := func(r *rand.Rand) string {
		if r.IntN(4) == 0 {
			return "." + digits(r, 1)
		}
		return "." + digits(r, 6)
	}
	clock := func(r *rand.Rand) string { return fmt.Sprintf("%02d:%02d:%02d", r.IntN(24), r.IntN(60), r.IntN(59)) }
	return []typeCase{
		{
			sql: "time" + suffix, kind: schemas.KindTime,
			values: []string{
				"'00:00:00'", "'-00:00:00.000001'", "'-00:00:01'", "'838:59:59'", "'-838:59:59'", "'23:59:59.999999'", "'24:00:00'", "'-00:00:00.5'", "'-00:00:00.01'",
				"'-00:00:01.1'", "'100:00:00'", "'-99:59:59.123456'",
			},
			random: func(r *rand.Rand) string {
				return fmt.Sprintf("'%s%02d:%02d:%02d%s'", strings.Repeat("-", r.IntN(2)), r.IntN(838), r.IntN(60), r.IntN(60), frac(r))
			},
		},
		{
			sql: "datetime" + suffix, kind: schemas.KindDateTime,
			values: []string{
				"'0000-00-00 00:00:00'", "'2026-00-00 01:02:03.4'", "'2026-02-00'", "'1000-01-01'", "'9999-12-31 23:59:59'", "'1969-12-31 23:59:59.4'", "'1970-01-01'",
				"'2021-02-31 10:00:00.5'", "'0000-01-01 00:00:01'", "'2026-11-21 10:15:30.123456'",
			},
			random: func(r *rand.Rand) string {
				return fmt.Sprintf("'%04d-%02d-%02d %s%s'", r.IntN(9999), r.IntN(13), r.IntN(29), clock(r), frac(r))
			},
		},
		{
			sql: "timestamp" + suffix, kind: schemas.KindTimestamp,
			values: []string{"'0000-00-00 00:00:00'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'2026-11-21 10:15:30.123456'"},
			random: func(r *rand.Rand) string {
				return fmt.Sprintf("'%04d-%02d-%02d %s%s'", 1971+r.IntN(66), 1+r.IntN(12), 1+r.IntN(28), clock(r), frac(r))
			},
		},
	}
}

func randomBytes(most int) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		b := make([]byte, r.IntN(most+1))
		for i := range b {
			b[i] = byte(r.Uint32())
			if r.IntN(3) == 0 {
				b[i] = 0
			}
		}
		return fmt.Sprintf("x'%x'", b)
	}
}

func stringCases() []typeCase {
	texts := []string{"''", "'a'", "' a'", "'Ünïcode ß'", "'漢字'", "'x''y\"z\\'"}
	emoji := append([]string{"'😀 '"}, texts...)
	long := func(n int) string { return fmt.Sprintf("repeat('ä€',%d)", n) }
	list := []typeCase{
		{sql: "char(10)", kind: schemas.KindText, values: append([]string{"'a '"}, emoji...)},
		{sql: "char(255)", kind: schemas.KindText, values: append([]string{long(127)}, emoji...)},
		{sql: "varchar(10)", kind: schemas.KindText, values: append([]string{"'a '"}, emoji...)},
		{sql: "varchar(63)", kind: schemas.KindText, values: append([]string{long(31)}, emoji...)},
		{sql: "varchar(64)", kind: schemas.KindText, values: append([]string{long(32)}, emoji...)},
		{sql: "varchar(2000)", kind: schemas.KindText, values: append([]string{long(1000)}, emoji...)},
		{sql: "nchar(10)", name: "char(10)", kind: schemas.KindText, values: texts},
		{sql: "nvarchar(10)", name: "varchar(10)", kind: schemas.KindText, values: texts},
		{sql: "binary(4)", kind: schemas.KindBytes, show: hexed, values: []string{"''", "x'00'", "x'01000000'", "x'00000001'", "x'20202020'", "x'ffffffff'"}, random: randomBytes(4)},
		{sql: "binary(255)", kind: schemas.KindBytes, show: hexed, values: []string{"''", "x'0100'"}, random: randomBytes(255), count: 50},
		{sql: "varbinary(4)", kind: schemas.KindBytes, show: hexed, values: []string{"''", "x'00'", "x'01000000'", "x'20'"}, random: randomBytes(4)},
		{sql: "varbinary(300)", kind: schemas.KindBytes, show: hexed, random: randomBytes(300), count: 50},
		{sql: "varchar(4) character set binary", name: "varbinary(4)", kind: schemas.KindBytes, show: hexed, random: randomBytes(4)},
		{sql: "enum('a','b,c','(d)','''','','Ä€😀')", kind: schemas.KindText, values: []string{"1", "2", "3", "4", "5", "6", "'nosuch'", "0", "''"}},
		{sql: "enum('Ä','x') character set latin1", name: "enum('Ä','x')", kind: schemas.KindText, values: []string{"1", "2"}},
		{sql: "enum('漢','x') character set ucs2", name: "enum('漢','x')", kind: schemas.KindText, values: []string{"1", "2"}},
		{sql: "set('a','b c','(d)','''','Ä€😀')", kind: schemas.KindText, values: []string{"0", "1", "2", "31", "'a,(d)'", "'nosuch,a'", "''"}},
		{sql: "set('Ä','x') character set latin1", name: "set('Ä','x')", kind: schemas.KindText, values: []string{"1", "2", "3"}},
		labels("enum", 300), labels("set", 9), labels("set", 17), labels("set", 25), labels("set", 64),
		{
			sql: "geometry", kind: schemas.KindBytes, show: hexed,
			values: []string{
				"st_geomfromtext('point(1 2)')", "st_geomfromtext('point(1 2)', 4326)", "st_geomfromtext('linestring(0 0,1 1)', 3857)",
				"st_geomfromtext('geometrycollection(point(1 1),linestring(0 0,1 1))')", "st_geomfromtext('multipolygon(((0 0,1 0,1 1,0 0)))')",
			},
		},
		{sql: "point", kind: schemas.KindBytes, show: hexed, values: []string{"st_geomfromtext('point(1 2)')"}},
		{sql: "multilinestring", kind: schemas.KindBytes, show: hexed, values: []string{"st_geomfromtext('multilinestring((0 0,1 1))')"}},
	}
	for _, size := range []string{"tiny", "", "medium", "long"} {
		n := 30
		if size != "tiny" {
			n = 10000
		}
		list = append(list,
			typeCase{sql: size + "text", kind: schemas.KindText, values: append([]string{long(n)}, emoji...)},
			typeCase{sql: size + "blob", kind: schemas.KindBytes, show: hexed, values: []string{fmt.Sprintf("repeat(x'00ff',%d)", n)}, random: randomBytes(200), count: 50})
	}
	return append(list, charsetCases()...)
}

// labels is an enum or set with many labels.
func labels(what string, n int) typeCase {
	c := typeCase{kind: schemas.KindText, values: []string{"0", "1", strconv.Itoa(n)}}
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("'l%d'", i)
	}
	c.sql = what + "(" + join(list, ",") + ")"
	if what == "set" {
		c.values = append(c.values, fmt.Sprint(uint64(math.MaxUint64)>>(64-n)), fmt.Sprint(uint64(1)<<(n-1)))
		c.random = func(r *rand.Rand) string { return fmt.Sprint(r.Uint64() >> (64 - n)) }
		c.count = 50
	}
	return c
}

// charsetCases stores text of each character set in each family of columns; TestCharsets has all codes.
func charsetCases() []typeCase {
	list := []typeCase{}
	for charset, text := range map[string]string{
		"latin1": "Ünï€", "utf8mb3": "Ü€漢", "utf8mb4": "Ü€漢😀", "ucs2": "Ü€漢", "utf16": "Ü€漢😀", "utf16le": "Ü€漢😀", "utf32": "Ü€漢😀", "gbk": "漢字丂", "gb2312": "汉字",
		"big5": "漢字", "sjis": "漢字ｱ", "cp932": "漢字ｱ①", "ujis": "漢字ｱ丂", "eucjpms": "漢字①", "euckr": "한국", "cp1251": "Привет", "koi8r": "Привет",
		"hebrew": "שלום", "tis620": "ไทย", "greek": "αβγ", "latin2": "čšž", "swe7": "ÅÄÖ", "ascii": "ascii",
	} {
		for _, column := range []string{"char(20)", "varchar(20)", "varchar(500)", "text"} {
			c := typeCase{sql: column + " character set " + charset, name: column, kind: schemas.KindText, values: []string{"''", "'a'", "'" + text + "'", "'" + text + " x'"}}
			list = append(list, c)
		}
		list = append(list, typeCase{sql: "varchar(20) character set " + charset + " collate " + charset + "_bin", name: "varchar(20)", kind: schemas.KindText, values: []string{"'" + text + "'"}})
	}
	return list
}
