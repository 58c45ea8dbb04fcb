package binlog_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
)

// typeCase is a column, values for it as SQL expressions, and the expression over v that makes the
// server print what show prints (default: cast(v as char)).
type typeCase struct {
	sql    string
	kind   schemas.Kind
	name   string // Type.Name; default: sql
	show   string
	values []string
	random func(r *rand.Rand) string
	count  int // random values, default 300
	// declared: the type cannot be told without the catalogue.
	declared string
}

const (
	hexed = "hex(v)"
	plus0 = "v+0"
)

func TestTypes(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		cases := append(numberCases(), temporalCases()...)
		cases = append(cases, stringCases()...)
		if s.mariadb {
			cases = append(cases, mariadbCases()...)
		} else {
			cases = append(cases, mysqlCases()...)
		}
		s.compare(t, cases)
	})
}

// compare stores the values of every case and holds what the binlog gives against what the server says.
func (s *server) compare(t *testing.T, cases []typeCase) {
	t.Helper()
	declared := map[string]string{}
	changes := s.record(t, declared, func() {
		for i, c := range cases {
			table := "t" + strconv.Itoa(i)
			if c.declared != "" {
				declared[table+".v"] = c.declared
			}
			s.exec(t, "create table "+table+" (id int primary key, v "+c.sql+" null)")
			values := append([]string{"null"}, c.values...)
			if c.random != nil {
				r := rand.New(rand.NewPCG(uint64(i), 7))
				n := c.count
				if n == 0 {
					n = 300
				}
				for range n {
					values = append(values, c.random(r))
				}
			}
			for j := range values {
				values[j] = fmt.Sprintf("(%d, %s)", j, values[j])
			}
			s.exec(t, "insert into "+table+" values "+join(values, ","))
		}
	})
	got := map[string][]change{}
	for _, c := range changes {
		got[c.table.Name] = append(got[c.table.Name], c)
	}
	selected := s.selecting(t)
	for i, c := range cases {
		t.Run(c.sql, func(t *testing.T) {
			if c.show == "" {
				c.show = "cast(v as char)"
			}
			table := "t" + strconv.Itoa(i)
			want := s.text(t, "select id, "+c.show+" from "+table+" order by id")
			s.compareRows(t, c, want, got[table])
			sameImages(t, selected.images(got[table][0].table), got[table])
		})
	}
}

func (s *server) compareRows(t *testing.T, c typeCase, want [][]string, got []change) {
	t.Helper()
	if len(got) != len(want) || len(got) == 0 {
		t.Fatalf("%d changes, want %d", len(got), len(want))
	}
	ty := &got[0].table.Columns[1].Type
	if c.name == "" {
		c.name = c.sql
	}
	if ty.Kind != c.kind || ty.Name != c.name {
		t.Errorf("type %q of kind %s, want %q of %s", ty.Name, ty.Kind, c.name, c.kind)
	}
	f := binlog.Form(got[0].table)
	for i := range want {
		cells, errs := read(t, f, got[i].table, got[i].after)
		if errs[1] != nil || cells[0] != want[i][0] || !same(cells[1], want[i][1], ty.Kind) {
			t.Errorf("row %s: got %.300q (%v), want %.300q", want[i][0], cells[1], errs[1], want[i][1])
		}
	}
}

func same(got, want string, kind schemas.Kind) bool {
	if kind == schemas.KindFloat && want != null {
		f, err := strconv.ParseFloat(want, 64)
		return err == nil && strconv.FormatFloat(f, 'g', -1, 64) == got
	}
	return got == want
}
