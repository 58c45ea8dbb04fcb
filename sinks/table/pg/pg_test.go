package pg

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/sinks/table/target"
)

// Errors name the place and never what stood in the row.
func TestTexts(t *testing.T) {
	for _, c := range []struct {
		e         pgconn.PgError
		kind      target.Kind
		says, not string
	}{
		{pgconn.PgError{Code: "22P02", Message: `invalid input syntax for type integer: "hu"sh"`}, target.Unfit, "invalid input syntax for type integer", "hu"},
		{pgconn.PgError{Code: "22003", Message: `value "1234" is out of range for type smallint`}, target.Unfit, "out of range for type smallint", "1234"},
		{pgconn.PgError{Code: "22021", Message: `invalid byte sequence for encoding "UTF8": 0x00`}, target.Unfit, "invalid byte sequence", "0x"},
		{pgconn.PgError{Code: "23505", Message: `duplicate key value violates unique constraint "mail"`, Detail: "Key (mail)=(hush) already exists.", ConstraintName: "mail"}, target.Conflict, "constraint mail", "hush"},
		{pgconn.PgError{Code: "23502", Message: `null value in column "a" of relation "t" violates not-null constraint`, Detail: "Failing row contains (hush).", ColumnName: "a"}, target.Unfit, "column a", "hush"},
		{pgconn.PgError{Code: "P0001", Message: "hush is not welcome"}, target.Unfit, "trigger", "hush"},
		{pgconn.PgError{Code: "42501", Message: "permission denied for table t"}, target.Away, "permission denied for table t", ""},
		{pgconn.PgError{Code: "25006", Message: "cannot execute INSERT in a read-only transaction"}, target.Away, "read-only", ""},
		{pgconn.PgError{Code: "53100", Message: "could not extend file: No space left on device"}, target.Away, "No space", ""},
		{pgconn.PgError{Code: "40P01", Message: "deadlock detected"}, target.Again, "deadlock", ""},
		{pgconn.PgError{Code: "42703", Message: `column "x" of relation "t" does not exist`}, target.Changed, `"x"`, ""},
	} {
		if text := textOf(&c.e); kindOf(c.e.Code) != c.kind || !strings.Contains(text, c.says) || c.not != "" && strings.Contains(text, c.not) {
			t.Errorf("%s %s: %d %s", c.e.Code, c.e.Message, kindOf(c.e.Code), text)
		}
	}
	if _, err := New("postgres://u:hush@h:x/d", 0); err == nil || strings.Contains(err.Error(), "hush") {
		t.Error(err)
	}
}
