package partition

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"flag"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	_ "github.com/go-sql-driver/mysql"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/schemas"
)

func TestMain(m *testing.M) { os.Exit(servertest.Main(m)) }

var writeLetters = flag.Bool("write-letters", false, "make letters.txt from what the databases say")

// TestCollations: what MySQL and MariaDB hold equal encodes equal, under every collation that they have, for
// every character of the BMP and for pairs and triples of letters.
func TestCollations(t *testing.T) {
	found := map[string]*classes{}
	for name, database := range map[string]func(testing.TB, servers.MySQLOptions) *servertest.Database{"mysql": servertest.MySQL, "mariadb": servertest.MariaDB} {
		t.Run(name, func(t *testing.T) {
			if !*writeLetters {
				t.Parallel()
			}
			compareCollations(t, connect(t, database(t, servers.MySQLOptions{})), found)
		})
	}
	if *writeLetters {
		var lines []string
		for f, c := range found {
			lines = append(lines, f+c.table()+"\n")
		}
		slices.Sort(lines)
		if err := os.WriteFile("letters.txt", []byte(strings.Join(lines, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func compareCollations(t *testing.T, db *sql.DB, found map[string]*classes) {
	fill(t, db)
	rows, err := db.Query("select distinct collation_name, character_set_name from information_schema.collation_character_set_applicability where collation_name not like '%\\_bin' and character_set_name<>'binary'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := 0
	var all [][2]string
	for rows.Next() {
		var name, charset string
		if err := rows.Scan(&name, &charset); err != nil {
			t.Fatal(err)
		}
		all = append(all, [2]string{name, charset})
	}
	for _, c := range all {
		name, charset := c[0], c[1]
		full := name
		if !strings.HasPrefix(name, charset) {
			full = charset + "_" + name
		}
		if collationOf(full).equality == opaque && !*writeLetters || isUnfoldable(full) || !wanted(name, charset) {
			continue
		}
		seen++
		groups, err := equalGroups(db, name, charset)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if *writeLetters {
			f := family(full)
			if found[f] == nil {
				found[f] = &classes{parent: map[string]string{}}
			}
			for _, g := range groups {
				for _, s := range g[1:] {
					found[f].union(node(g[0]), node(s), full)
				}
			}
			continue
		}
		compareGroups(t, full, groups)
	}
	if seen < 50 {
		t.Fatalf("only %d collations", seen)
	}
}

func isUnfoldable(name string) bool {
	return slices.ContainsFunc(unfoldable, func(u string) bool { return strings.Contains(name, u) })
}

func compareGroups(t *testing.T, collation string, groups [][]string) {
	t.Helper()
	shown := 0
	ty := schemas.Type{Kind: schemas.KindText, Code: 15, Collation: collation}
	var first, other []byte
	for _, g := range groups {
		first = appendText(first[:0], []byte(g[0]), &ty)
		for _, s := range g[1:] {
			if other = appendText(other[:0], []byte(s), &ty); !bytes.Equal(first, other) {
				if shown++; shown < 5 {
					t.Errorf("%s holds %+q and %+q equal: %x %x", collation, g[0], s, first, other)
				}
			}
		}
	}
}

// wanted leaves out what differs from another collation in the character set, or in being finer, alone.
func wanted(name, charset string) bool {
	switch {
	case strings.Contains(name, "uca1400"):
		return charset == "utf8mb4" && strings.HasSuffix(name, "_ai_ci") && !strings.Contains(name, "nopad")
	case charset == "ucs2" || strings.HasPrefix(charset, "utf16") || charset == "utf32":
		return *writeLetters
	}
	return !strings.HasSuffix(name, "_as_cs") || *writeLetters
}

// classes joins characters that have to be one.
type classes struct {
	parent map[string]string
}

// node is the encoding of ASCII text, else the text itself.
func node(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return string(appendCoarse([]byte("="), []byte(s), nil))
	}
	return s
}

func (c *classes) find(e string) string {
	p, ok := c.parent[e]
	if !ok {
		c.parent[e] = e
	}
	if !ok || p == e {
		return e
	}
	r := c.find(p)
	c.parent[e] = r
	return r
}

// union keeps ASCII as the representative.
func (c *classes) union(a, b, why string) {
	by := a + "/" + b
	a, b = c.find(a), c.find(b)
	if a == b {
		return
	}
	plain := func(e string) bool { return e[0] == '=' }
	if plain(a) && plain(b) {
		fmt.Printf("%s: %q is %q by %q\n", why, a[1:], b[1:], by)
	}
	if plain(b) && !plain(a) || plain(a) == plain(b) && (len(b) < len(a) || len(b) == len(a) && b < a) {
		a, b = b, a
	}
	c.parent[b] = a
}

func (c *classes) table() string {
	var out []string
	for s := range c.parent {
		to := c.find(s)
		if to[0] != '=' {
			to = string(appendCoarse([]byte("="), []byte(to), nil))
		}
		if s[0] != '=' && string(appendCoarse([]byte("="), []byte(s), nil)) != to {
			out = append(out, "\t"+s+to[1:])
		} else if s[0] == '=' && s != to && len(s) == 2 {
			out = append(out, "\t"+s[1:]+to[1:])
		}
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func connect(t testing.TB, d *servertest.Database) *sql.DB {
	t.Helper()
	u, err := url.Parse(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	db, err := sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(%s)/%s?charset=utf8mb4&maxAllowedPacket=0&group_concat_max_len=67108864", u.User.Username(), password, u.Host, d.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func fill(t testing.TB, db *sql.DB) {
	t.Helper()
	if _, err := db.Exec("create table chars (c varchar(6) character set utf8mb4 collate utf8mb4_bin)"); err != nil {
		t.Fatal(err)
	}
	var vals []string
	flush := func() {
		if len(vals) > 0 {
			if _, err := db.Exec("insert into chars values " + strings.Join(vals, ",")); err != nil {
				t.Fatal(err)
			}
		}
		vals = vals[:0]
	}
	put := func(s string) {
		vals = append(vals, "(x'"+hex.EncodeToString([]byte(s))+"')")
		if len(vals) == 5000 {
			flush()
		}
	}
	put("")
	for r := rune(0); r < 0x10000; r++ {
		if r < 0xD800 || r > 0xDFFF {
			put(string(r))
		}
	}
	for _, r := range []rune{0x10000, 0x10400, 0x10428, 0x1D400, 0x1D7CE, 0x1F600, 0x1F601, 0x20000, 0x2F800, 0x118A0, 0x118C0, 0xE0001, 0x1F1E6, 0x1F130} {
		put(string(r))
	}
	for r := rune(0x10000); r < 0x20000; r++ {
		if unicode.In(r, unicode.M, unicode.Nd, unicode.No, unicode.Nl) {
			put(string(r))
		}
	}
	for a := 'a'; a <= 'z'; a++ {
		for b := 'a'; b <= 'z'; b++ {
			put(string([]rune{a, b}))
			for c := 'a'; c <= 'z'; c++ {
				put(string([]rune{a, b, c}))
			}
		}
	}
	for _, s := range []string{"ccs", "cscs", "ggy", "gygy", "lly", "lyly", "nny", "nyny", "ssz", "szsz", "tty", "tyty", "zzs", "zszs", "ddz", "dzdz", "ddzs", "dzsdzs"} {
		if len(s) > 3 {
			put(s)
		}
	}
	flush()
}

func equalGroups(db *sql.DB, collation, cs string) (groups [][]string, err error) {
	q := fmt.Sprintf("select group_concat(hex(c) separator ' ') from chars where cast(convert(convert(c using %[1]s) using utf8mb4) as binary) = cast(c as binary) group by convert(c using %[1]s) collate %[2]s having count(*)>1", cs, collation)
	rows, err := db.Query(q)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		var g []string
		for _, h := range strings.Split(s, " ") {
			b, err := hex.DecodeString(h)
			if err != nil {
				return nil, err
			}
			g = append(g, string(b))
		}
		groups = append(groups, g)
	}
	return groups, rows.Err()
}
