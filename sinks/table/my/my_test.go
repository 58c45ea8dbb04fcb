package my

import (
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/leat-cdc/leat/sinks/table/target"
)

// Errors name the place and never what stood in the row.
func TestTexts(t *testing.T) {
	for _, c := range []struct {
		code      uint16
		message   string
		kind      target.Kind
		says, not string
	}{
		{1366, "Incorrect integer value: 'hush' for column 'size' at row 1", target.Unfit, "not a value of the type, column size", "hush"},
		{1366, "Incorrect integer value: 'my column hush at row 1' for column `db`.`t`.`size` at row 7", target.Unfit, "column db.t.size", "hush"},
		{1292, "Incorrect datetime value: '0000-00-00' for column 'at' at row 1", target.Unfit, "column at", "0000"},
		{1062, "Duplicate entry 'hush for key 'x'' for key 't.mail'", target.Conflict, "index t.mail", "hush"},
		{1452, "Cannot add or update a child row: a foreign key constraint fails (`db`.`t`, CONSTRAINT `fk` FOREIGN KEY (`a`) REFERENCES `o` (`id`))", target.Conflict, "constraint fk of t", "REFERENCES"},
		{1048, "Column 'a' cannot be null", target.Unfit, "a column cannot be NULL, column a", ""},
		{1364, "Field 'b' doesn't have a default value", target.Unfit, "column b", ""},
		{3819, "Check constraint 'even' is violated.", target.Unfit, "constraint even", ""},
		{4025, "CONSTRAINT `even` failed for `db`.`t`", target.Unfit, "constraint even", ""},
		{1644, "no row with column 'hush' at row 1", target.Unfit, "trigger", "hush"},
		{1142, "DELETE command denied to user 'u'@'h' for table 't'", target.Away, "DELETE command denied", ""},
		{1114, "The table 't' is full", target.Away, "full", ""},
		{1290, "The MySQL server is running with the --read-only option so it cannot execute this statement", target.Away, "read-only", ""},
		{1213, "Deadlock found when trying to get lock; try restarting transaction", target.Again, "Deadlock", ""},
	} {
		e := &mysql.MySQLError{Number: c.code, Message: c.message}
		if text := textOf(e); kindOf(c.code) != c.kind || !strings.Contains(text, c.says) || c.not != "" && strings.Contains(text, c.not) {
			t.Errorf("%d %s: %d %s", c.code, c.message, kindOf(c.code), text)
		}
	}
}

// URLs are read as those of sources, and what is wrong with them is told without the password.
func TestURL(t *testing.T) {
	for _, bad := range []string{"http://u:hush@h/", "mysql://u:hush@h/?tls=maybe", "mysql://u:hush@h/?ca=/nowhere", "mysql://u:hush@h/?tls=verify-ca", "mysql://u:hush@h/?sslmode=x", "mysql://u:hush@h:x/", "mysql://u:hush@h/?timeout=soon"} {
		if _, err := parse(bad, time.Second); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for url, want := range map[string][2]bool{ // the name is not proven; plain text will do
		"mysql://h/d": {true, true}, "mysql://h/?tls=required": {true, false}, "mysql://h/?tls=verify-full": {false, false},
	} {
		c, err := parse(url, time.Second)
		if err != nil || c.TLS == nil || c.TLS.InsecureSkipVerify != want[0] || c.AllowFallbackToPlaintext != want[1] || c.TLS.ServerName != "h" || c.Addr != "h:3306" {
			t.Errorf("%s: %+v %v", url, c, err)
		}
	}
	if c, err := parse("mariadb://u@h/d?tls=disable", time.Second); err != nil || c.TLS != nil || c.DBName != "d" {
		t.Errorf("%+v %v", c, err)
	}
	if c, err := parse("mysql://u@/d?socket=/run/x.sock", time.Second); err != nil || c.Net != "unix" || c.Addr != "/run/x.sock" {
		t.Errorf("%+v %v", c, err)
	}
}
