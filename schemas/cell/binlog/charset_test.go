package binlog_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/binlog/charset"
)

// TestCharsets asks a server for every code of one and two bytes in every character set that it has, for
// three bytes where it has those, and for all of Unicode in the sets that hold it.
func TestCharsets(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		s.exec(t, "create table d (n int primary key)", "insert into d values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9),(10),(11),(12),(13),(14),(15)",
			"create table b (n int primary key, x varbinary(2))",
			"insert into b select n, if(n<256, unhex(lpad(hex(n),2,'0')), unhex(lpad(hex(n),4,'0'))) from (select a.n+b.n*16+c.n*256+d.n*4096 n from d a, d b, d c, d d) q where n<256 or n>=32768")
		for _, set := range s.text(t, "select character_set_name, maxlen from information_schema.character_sets") {
			t.Run(set[0], func(t *testing.T) { s.compareCodes(t, set[0], set[1]) })
		}
	})
}

func (s *server) compareCodes(t *testing.T, set, maxLen string) {
	convert := func(x string) string {
		return "select hex(" + x + "), hex(convert(convert(" + x + " using " + set + ") using utf8mb4)) from b where "
	}
	switch set {
	case "binary", "utf8mb4", "utf8mb3":
		return
	case "ucs2", "utf16", "utf16le", "utf32":
		// What the set holds, asked for by way of UTF-8.
		all := "select hex(convert(c using " + set + ")), hex(convert(c using utf8mb4)) from (select convert(unhex(lpad(hex(n%s),8,'0')) using utf32) c from b where n>0 %s) q"
		s.compareText(t, set, s.text(t, fmt.Sprintf(all, "", "and (n<55296 or n>=57344)")), false)
		if set != "ucs2" {
			s.compareText(t, set, s.text(t, fmt.Sprintf(all, "*16+65536", "")), false)
		}
		return
	case "ascii":
		s.compareText(t, set, s.text(t, convert("x")+"n<128"), true) // MySQL takes what is not ASCII for UTF-8
		return
	}
	where := "true"
	if maxLen == "1" {
		where = "n<256"
	}
	s.compareText(t, set, s.text(t, convert("x")+where), true)
	if maxLen == "3" {
		s.compareText(t, set, s.text(t, convert("concat(x'8f',x)")+"n>=41120"), true)
	}
	if set == "gb18030" {
		s.compareText(t, set, s.text(t, "select hex(convert(c using gb18030)), hex(convert(c using utf8mb4)) from (select convert(unhex(lpad(hex(n),8,'0')) using utf32) c from b where n>0 and (n<55296 or n>=57344)) q"), false)
		s.compareText(t, set, s.text(t, "select hex(convert(c using gb18030)), hex(convert(c using utf8mb4)) from (select convert(unhex(lpad(hex(n*16+65536),8,'0')) using utf32) c from b) q"), false)
	}
}

// compareText holds (bytes, UTF-8) of a server against our conversion. Where codes were enumerated, the
// server's refusals must be ours too.
func (s *server) compareText(t *testing.T, set string, list [][]string, codes bool) {
	t.Helper()
	f := textForm(set)
	var scratch cell.Scratch
	accepted := 0
	for _, line := range list {
		raw, err := hex.DecodeString(line[0])
		check(t, err)
		want := ""
		if line[1] != null {
			u, err := hex.DecodeString(line[1])
			check(t, err)
			want = string(u)
		}
		refused := want == "" || !utf8.ValidString(want) || strings.Contains(want, "\ufffd") || strings.Count(want, "?") > strings.Count(string(raw), "?")
		if refused && !codes {
			continue // Unicode has more than the set
		}
		scratch.Reset()
		var v cell.Value
		err = f.Decode[0](&v, raw, &scratch)
		switch {
		case err != nil && len(raw) == 2 && want == decodeText(f, raw[:1]): // MySQL drops a second byte that it refuses alone
			continue
		case err != nil && !refused:
			t.Errorf("%x: %v, want %q", raw, err, want)
		case err == nil && refused:
			t.Errorf("%x: %q, which the server refuses (%q)", raw, v.B, want)
		case err == nil && !codes && string(v.B) == "?":
			continue // again
		case err == nil && string(v.B) != want:
			t.Errorf("%x: %q, want %q", raw, v.B, want)
		}
		if err == nil {
			accepted++
		}
		if t.Failed() && accepted > 100 {
			t.FailNow()
		}
	}
	if accepted < 90 {
		t.Errorf("only %d of %d codes are text", accepted, len(list))
	}
}

// decodeText is empty for what is not text.
func decodeText(f *cell.Form, raw []byte) string {
	var v cell.Value
	if err := f.Decode[0](&v, raw, &cell.Scratch{}); err != nil {
		return ""
	}
	return string(v.B)
}

func textForm(set string) *cell.Form {
	return binlog.Form(&schemas.Table{Columns: []schemas.Column{{Type: schemas.Type{Kind: schemas.KindText, Code: binlog.TypeVarchar, Meta: 1000, Charset: set}}}})
}

// TestCollations asks a server for all its collations.
func TestCollations(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		query := "select id, collation_name, character_set_name from information_schema.collations"
		if s.mariadb {
			query = "select id, full_collation_name, character_set_name from information_schema.collation_character_set_applicability"
		}
		list := s.text(t, query)
		for _, line := range list {
			var id uint64
			_, err := fmt.Sscan(line[0], &id)
			check(t, err)
			name, set, err := charset.Collation(id)
			check(t, err)
			// Five ids of MariaDB's mean another collation in MySQL.
			if name != line[1] && strings.ReplaceAll(line[1], "_croatian_mysql561_ci", "_croatian_ci") != name || set != line[2] {
				t.Errorf("collation %d is %s of %s, want %s of %s", id, name, set, line[1], line[2])
			}
			if _, err := binlog.TypeOf(binlog.TableMapColumn{Code: binlog.TypeVarchar, Meta: 100, Collation: id}); err != nil {
				t.Error(err)
			}
		}
		if len(list) < 280 {
			t.Errorf("only %d collations", len(list))
		}
	})
}
