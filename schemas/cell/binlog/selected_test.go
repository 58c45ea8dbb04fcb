package binlog_test

import (
	"bytes"
	"encoding/binary"
	"net/url"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell/binlog"
	"github.com/leat-cdc/leat/schemas/cell/binlog/rowimage"
)

// selecting is a connection that reads rows in the client protocol's binary form, packet by packet.
type selecting struct {
	t testing.TB
	c *client.Conn
}

func (s *server) selecting(t testing.TB) *selecting {
	t.Helper()
	u, err := url.Parse(s.db.URL)
	check(t, err)
	password, _ := u.User.Password()
	c, err := client.Connect(u.Host, u.User.Username(), password, s.db.Name)
	check(t, err)
	t.Cleanup(func() { check(t, c.Close()) })
	_, err = c.Execute("set names utf8mb4, character_set_results=null, time_zone='+00:00', sql_mode=''")
	check(t, err)
	return &selecting{t, c}
}

func (s *selecting) send(p []byte) {
	s.t.Helper()
	s.c.ResetSequence()
	check(s.t, s.c.WritePacket(append(make([]byte, 4), p...)))
}

func (s *selecting) next() []byte {
	s.t.Helper()
	p, err := s.c.ReadPacket()
	check(s.t, err)
	if p[0] == 0xff {
		s.t.Fatalf("the server: %q", p[3:])
	}
	return p
}

func eof(p []byte) bool { return p[0] == 0xfe && len(p) < 0xffffff }

// images selects the rows of a table, in order of id, as row images.
func (s *selecting) images(t *schemas.Table) [][]byte {
	s.t.Helper()
	var list []string
	for _, i := range rowimage.Kept(t) {
		list = append(list, rowimage.Select(&t.Columns[i].Type, "`"+t.Columns[i].Name+"`"))
	}
	s.send(append([]byte{mysql.COM_STMT_PREPARE}, "select "+join(list, ", ")+" from `"+t.Name+"` order by id"...))
	p := s.next()
	id, n := p[1:5], int(binary.LittleEndian.Uint16(p[5:]))
	for range n {
		s.next()
	}
	// The packet behind the columns is there only where the server does not know better.
	s.send([]byte{mysql.COM_STMT_EXECUTE, id[0], id[1], id[2], id[3], 0, 1, 0, 0, 0})
	for p = s.next(); p[0] != byte(n); p = s.next() { // an end of the columns before
	}
	codes := make([]uint8, n)
	for i := range codes {
		p = s.next()
		at := 0
		for range 6 {
			size, _, width := mysql.LengthEncodedInt(p[at:])
			at += width + int(size)
		}
		codes[i] = p[at+1+2+4]
	}
	m, err := rowimage.New(t, codes)
	if err != nil {
		s.t.Fatalf("%s: %v", t.Name, err)
	}
	var out [][]byte
	if p = s.next(); len(p) == 5 && eof(p) {
		p = s.next()
	}
	for ; !eof(p); p = s.next() {
		image, err := m.Append(nil, p)
		if err != nil {
			s.t.Fatalf("%s: %v", t.Name, err)
		}
		out = append(out, image)
	}
	s.send([]byte{mysql.COM_STMT_CLOSE, id[0], id[1], id[2], id[3]})
	return out
}

// sameImages holds the cells of selected rows against those of the binlog: they are the same bytes, but for JSON and
// compressed columns, whose values are. (The bits of the null bitmap behind the last column are anything.)
func sameImages(t *testing.T, got [][]byte, want []change) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows selected, %d in the binlog", len(got), len(want))
	}
	table := want[0].table
	f := binlog.Form(table)
	for i := range want {
		x, err := f.Walk(got[i], nil, len(table.Columns))
		check(t, err)
		y, err := f.Walk(want[i].after, nil, len(table.Columns))
		check(t, err)
		a, errs := read(t, f, table, got[i])
		b, wrong := read(t, f, table, want[i].after)
		for j := range a {
			if a[j] != b[j] || errs[j] != nil || wrong[j] != nil {
				t.Errorf("row %d: selected %.300q (%v), in the binlog %.300q (%v)", i, a[j], errs[j], b[j], wrong[j])
			}
			switch table.Columns[j].Type.Code {
			case binlog.TypeJSON, binlog.TypeBlobCompressed, binlog.TypeVarcharCompressed:
				continue
			}
			if !bytes.Equal(x[j].Of(got[i]), y[j].Of(want[i].after)) {
				t.Errorf("row %d: selected %.60x, in the binlog %.60x", i, got[i], want[i].after)
			}
		}
	}
}

// A row without some columns has them absent.
func TestSelectedWithoutColumns(t *testing.T) {
	both(t, func(t *testing.T, s *server) {
		changes := s.record(t, nil, func() {
			s.exec(t, "create table d (id int primary key, a varchar(10), b varchar(10), c int, e int, f int, g int, h int, i int, j enum('x','y'))",
				"insert into d values (1,'secret','b',2,3,4,5,6,7,'y'), (2,'secret',null,null,null,null,null,null,null,null)")
		})
		table := *changes[0].table
		table.Columns = append([]schemas.Column(nil), table.Columns...)
		table.Columns[1].Dropped = true
		images := s.selecting(t).images(&table)
		for n, want := range []string{"1 <ABSENT> b 2 3 4 5 6 7 y", "2 <ABSENT> <NULL> <NULL> <NULL> <NULL> <NULL> <NULL> <NULL> <NULL>"} {
			cells, _ := read(t, binlog.Form(&table), &table, images[n])
			if got := strings.Join(cells, " "); got != want || bytes.Contains(images[n], []byte("secret")) {
				t.Errorf("%q, want %q", got, want)
			}
		}
	})
}
