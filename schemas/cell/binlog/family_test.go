package binlog_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

func mysqlCases() []typeCase {
	return []typeCase{
		{sql: "varchar(20) character set gb18030", name: "varchar(20)", kind: schemas.KindText, values: []string{"'漢字😀丂€'", "'a'"}},
		{sql: "text character set gb18030", name: "text", kind: schemas.KindText, values: []string{"'漢字😀丂€'", "'a'"}},
		{sql: "json", kind: schemas.KindJSON, values: jsonValues(), random: randomJSON, count: 2000},
		{
			sql: "vector(3)", kind: schemas.KindVector, show: hexed, values: []string{"to_vector('[1,2,3]')", "to_vector('[0.1,-1e30,1e-30]')", "to_vector('[1]')"},
		},
		{sql: "vector(2048)", kind: schemas.KindVector, show: hexed, values: []string{"to_vector('[1,2,3]')"}},
	}
}

func jsonValues() []string {
	deep := strings.Repeat("[", 99) + strings.Repeat("]", 99)
	list := []string{
		`'null'`, `'true'`, `'false'`, `'0'`, `'-1'`, `'32767'`, `'32768'`, `'-32769'`, `'65535'`, `'2147483648'`, `'9007199254740993'`, `'9223372036854775807'`,
		`'-9223372036854775808'`, `'18446744073709551615'`, `'18446744073709551616'`, `'""'`, `'[]'`, `'{}'`, `'[[],{},null]'`, `'[1e15, 1e14, 1e-14, 1e-15, 1e-16, -0.0, 1.0]'`,
		`'{"b":1,"a":2,"aa":3,"":4,"Ä":5,"😀":"😀"}'`, `'"a\u0001\b\f\n\r\t\\\"/\u2028\u00e9\ud83d\ude00\u007f\u0000\u001f"'`, `'` + deep + `'`,
		`json_array(cast('2020-01-02' as date), cast('2020-01-02 03:04:05.6' as datetime(1)), cast('-12:00:01' as time), cast('-838:59:59' as time), cast('123:2:3.4' as time(6)), cast(0 as time))`,
		`json_array(timestamp'2020-01-02 03:04:05', cast(1.5 as float), cast(0.1 as float), cast(1e10 as float), x'00ff', cast(0.00 as decimal(5,2)), cast(-5.10 as decimal(10,3)))`,
		`json_array(cast('0000-00-00' as date), cast('2020-00-00' as date), cast(2020 as year), 1.50, 12345678901234567890123456789012345.123456789012345678901234567890)`,
		`json_array(repeat(x'00ff', 100), st_geomfromtext('point(1 2)'), cast('x' as binary))`,
		`json_object('x', repeat('y', 70000))`, `json_object('x', repeat('y', 127), 'z', repeat('y', 128))`, `concat('[', repeat('70000,', 20000), '1]')`,
		`concat('{"a":"', repeat('x', 65500), '","b":[1,100000,-100000,4294967295,true,null,"s"]}')`,
	}
	return list
}

// randomJSON is a random document as SQL.
func randomJSON(r *rand.Rand) string {
	return "'" + strings.ReplaceAll(jsonText(r, 0), "'", "''") + "'"
}

func jsonText(r *rand.Rand, depth int) string {
	kinds := 8
	if depth > 4 {
		kinds = 6
	}
	switch r.IntN(kinds) {
	case 0:
		return [...]string{"null", "true", "false"}[r.IntN(3)]
	case 1:
		return strconv.FormatInt(int64(r.Uint64())>>r.IntN(64), 10)
	case 2:
		return strconv.FormatUint(r.Uint64()>>r.IntN(64), 10)
	case 3:
		f := math.Float64frombits(r.Uint64())
		if math.IsNaN(f) || math.IsInf(f, 0) {
			f = 1
		}
		return strconv.FormatFloat(f, 'e', -1, 64)
	case 4:
		f := float64(r.IntN(1_000_000)) * math.Pow10(r.IntN(40)-25)
		return strconv.FormatFloat(f, 'e', -1, 64)
	case 5:
		return jsonString(r, 40)
	case 6:
		list := make([]string, r.IntN(6))
		for i := range list {
			list[i] = jsonText(r, depth+1)
		}
		return "[" + join(list, ",") + "]"
	default:
		list := make([]string, r.IntN(6))
		for i := range list {
			list[i] = jsonString(r, 6) + ":" + jsonText(r, depth+1)
		}
		return "{" + join(list, ",") + "}"
	}
}

func jsonString(r *rand.Rand, most int) string {
	var b strings.Builder
	for range r.IntN(most) {
		c := [...]rune{'a', 'b', 'z', '"', '\\', '\n', 1, 'é', '€', '漢', '😀', '\'', '/', 0x7f, 0x2028}[r.IntN(15)]
		switch {
		case c == '"' || c == '\\':
			b.WriteRune('\\')
			b.WriteRune(c)
		case c < ' ':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteRune(c)
		}
	}
	return `"` + b.String() + `"`
}

func mariadbCases() []typeCase {
	address := func(r *rand.Rand) string {
		groups := make([]string, 8)
		for i := range groups {
			groups[i] = "0"
			if r.IntN(2) == 0 {
				groups[i] = strconv.FormatUint(uint64(r.Uint32()&0xffff)>>r.IntN(16), 16)
			}
		}
		return "'" + join(groups, ":") + "'"
	}
	list := []typeCase{
		{sql: "json", name: "longtext", kind: schemas.KindText, values: []string{`'{"b": 1.0,"a":2}'`, `'[ 1 ]'`}},
		{
			sql: "uuid", declared: "uuid", kind: schemas.KindText,
			values: []string{
				"uuid()", "sys_guid()", "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'018f6d5e-1111-7abc-8def-0123456789ab'",
				"'1ec9414c-232a-6b00-b3c8-9e6bdeced846'", "'123e4567-e89b-12d3-0456-426614174000'", "'123e4567-e89b-42d3-a456-426614174000'",
			},
			random: func(r *rand.Rand) string {
				return fmt.Sprintf("'%08x-%04x-%x%03x-%x%03x-%012x'", r.Uint32(), r.Uint32()&0xffff, r.IntN(8), r.Uint32()&0xfff, r.IntN(16), r.Uint32()&0xfff, r.Uint64()>>16)
			}, count: 2000,
		},
		{sql: "inet4", declared: "inet4", kind: schemas.KindText, values: []string{"'0.0.0.0'", "'255.255.255.255'", "'1.2.3.0'", "'10.0.0.1'"}},
		{
			sql: "inet6", declared: "inet6", kind: schemas.KindText, random: address, count: 2000,
			values: []string{
				"'::'", "'::1'", "'::ffff:1.2.3.4'", "'::1.2.3.4'", "'::0.1.2.3'", "'::0.0.1.2'", "'2001:db8::1'", "'1::'", "'1:0:0:2::3'", "'fe80::1:0:0:1'", "'0:1::'", "'1:0:1:0:1:0:1:0'", "'::ffff:0:0'",
				"'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'", "'1:2:3:4:5:6:7::'", "'::2:3:4:5:6:7:8'", "'0:0:0:0:0:ffff:0:1'", "'::1:ffff:1.2.3.4'",
			},
		},
		{sql: "decimal(65,38)", kind: schemas.KindDecimal, values: []string{"0", "-0.00000000000000000000000000000000000001", "1.5"}},
		{sql: "varchar(10) compressed", name: "varchar(10)", kind: schemas.KindText, values: []string{"''", "'a'", "'Ü€😀'"}},
		{sql: "varchar(2000) compressed", name: "varchar(2000)", kind: schemas.KindText, values: []string{"''", "'a'", "repeat('Ü€😀',500)"}},
		{sql: "varchar(255) compressed character set latin1", name: "varchar(255)", kind: schemas.KindText, values: []string{"''", "'ü'", "repeat('ü',255)", "repeat('ü',254)"}},
		{sql: "varbinary(500) compressed", name: "varbinary(500)", kind: schemas.KindBytes, show: hexed, values: []string{"''", "x'00'", "repeat(x'00',500)"}, random: randomBytes(500), count: 50},
	}
	for _, size := range []string{"tiny", "", "medium", "long"} {
		n := map[string]int{"tiny": 28, "": 7000}[size]
		if n == 0 {
			n = 100000
		}
		list = append(list,
			typeCase{sql: size + "text compressed", name: size + "text", kind: schemas.KindText, values: []string{"''", "'a'", fmt.Sprintf("repeat('Ü€😀',%d)", n)}},
			typeCase{sql: size + "blob compressed", name: size + "blob", kind: schemas.KindBytes, show: hexed, values: []string{"''", fmt.Sprintf("repeat(x'0102',%d)", n)}, random: randomBytes(200), count: 50})
	}
	return list
}
