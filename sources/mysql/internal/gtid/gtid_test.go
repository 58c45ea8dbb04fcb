package gtid

import (
	"testing"

	"github.com/go-mysql-org/go-mysql/mysql"
	"pgregory.net/rapid"
)

var sids = []SID{
	{UUID: [16]byte{1, 2}}, {UUID: [16]byte{1, 2}, Tag: "a"}, {UUID: [16]byte{1, 2}, Tag: "b_1"}, {UUID: [16]byte{0xff, 15: 9}},
}

// A set holds what was added, whatever the order, and its text and bytes bring it back; the text is the
// one that another implementation reads as the same set.
func TestSetModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model := &Set{}, map[SID]map[int64]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			sid, gno := rapid.SampledFrom(sids).Draw(t, "sid"), rapid.Int64Range(1, 30).Draw(t, "gno")
			s.Add(sid, gno)
			if model[sid] == nil {
				model[sid] = map[int64]bool{}
			}
			model[sid][gno] = true
		}
		check := func(what string, s *Set) {
			for _, sid := range sids {
				for gno := range int64(32) {
					if s.Contains(sid, gno) != model[sid][gno] {
						t.Fatalf("%s: %v:%d: got %v", what, sid, gno, s.Contains(sid, gno))
					}
				}
			}
		}
		check("added", s)
		parsed, err := Parse(s.String())
		if err != nil {
			t.Fatal(err)
		}
		check("parsed", parsed)
		decoded, err := Decode(s.Encode(nil))
		if err != nil {
			t.Fatal(err)
		}
		check("decoded", decoded)
		if decoded.String() != s.String() {
			t.Fatalf("text %q after decoding %q", decoded, s)
		}
		other, err := mysql.ParseMysqlGTIDSet(s.String())
		if err != nil {
			t.Fatal(err)
		}
		if !s.Empty() && string(other.Encode()) != string(s.Encode(nil)) {
			t.Fatalf("encoded %x, another implementation %x", s.Encode(nil), other.Encode())
		}
	})
}

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"3E11FA47-71CA-11E1-9E33-C80AA9429562:1-3:11:47-49, \n3e11fa47-71ca-11e1-9e33-c80aa9429561:5": "3e11fa47-71ca-11e1-9e33-c80aa9429561:5,3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3:11:47-49",
		"3e11fa4771ca11e19e33c80aa9429562:2:1:Tag:7-8":                                                "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2:tag:7-8",
	} {
		s, err := Parse(text)
		if err != nil || s.String() != want {
			t.Errorf("Parse(%q) = %v, %v", text, s, err)
		}
	}
	for _, bad := range []string{"x", "3e11fa47-71ca-11e1-9e33-c80aa9429562", "3e11fa47-71ca-11e1-9e33-c80aa9429562:0", "3e11fa47-71ca-11e1-9e33-c80aa9429562:5-4", "3e11fa47-71ca-11e1-9e33-c80aa9429562:a-b:1"} {
		if s, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %v", bad, s)
		}
	}
}

func TestMaria(t *testing.T) {
	p, err := ParseMaria("1-2-30,0-1-100,0-7-5")
	if err != nil || p.String() != "0-1-100,1-2-30" {
		t.Fatalf("%v, %v", p, err)
	}
	p.Set(Maria{0, 9, 101})
	p.Set(Maria{5, 1, 1})
	if p.String() != "0-9-101,1-2-30,5-1-1" {
		t.Fatal(p)
	}
	if _, err := ParseMaria("0-1"); err == nil {
		t.Fatal("no error")
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	s, gno := &Set{}, int64(0)
	s.Add(sids[1], 1)
	gno = 1
	if n := testing.AllocsPerRun(100, func() { gno++; s.Add(sids[1], gno) }); n != 0 {
		t.Fatalf("%v allocations for the next transaction", n)
	}
}

func FuzzDecode(f *testing.F) {
	s, _ := Parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2:tag:7-8")
	f.Add(s.Encode(nil))
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := Decode(b); err == nil {
			if again, err := Parse(s.String()); err != nil || again.String() != s.String() {
				t.Fatalf("%v, %v of %v", again, err, s)
			}
		}
		_, _ = DecodeMariaList(b)
	})
}

func FuzzParse(f *testing.F) {
	f.Add("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2:tag:7-8")
	f.Add("0-1-2,3-4-5")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := Parse(text); err == nil {
			if again, err := Parse(s.String()); err != nil || again.String() != s.String() {
				t.Fatalf("%v, %v of %v", again, err, s)
			}
		}
		_, _ = ParseMaria(text)
	})
}
