// Package target holds the words in which the table sink speaks with the database that it writes to.
package target

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/cell"
)

// Name of a table; Schema is MySQL's database, empty for the connection's own.
type Name struct{ Schema, Table string }

// String is the name for people.
func (n Name) String() string {
	if n.Schema == "" {
		return n.Table
	}
	return n.Schema + "." + n.Table
}

// Column of a table as it is on the server.
type Column struct {
	Name string
	// Type as the server writes it; for casts, without what limits lengths.
	Type string
	// Generated: the server computes it, nobody may write it.
	Generated bool
	// Merges is the collation, where that holds texts equal that differ; else empty.
	Merges string
}

// Shape of a table as it is on the server.
type Shape struct {
	Columns []Column
	// Uniques are the columns of each unique index that holds for all rows.
	Uniques [][]string
}

// Column returns the named one, nil when there is none.
func (s *Shape) Column(name string) *Column {
	for i := range s.Columns {
		if s.Columns[i].Name == name {
			return &s.Columns[i]
		}
	}
	return nil
}

// Field is a column that is to be made.
type Field struct {
	Name string
	Type *schemas.Type
	// Native: Type is as the source's own catalogue has it, and the server is of that kind perhaps.
	Native schemas.Wire
	Key    bool
}

// Verb says what becomes of the rows of a Change.
type Verb uint8

const (
	// Upsert: the cells are the whole row.
	Upsert Verb = iota
	// Update: the row is there and keeps what is not among the cells; one that is not there is Missing.
	Update
	// Delete: the cells are the key.
	Delete
)

// Change is rows of one table that one statement may write: of a key only one.
type Change struct {
	Verb Verb
	Name Name
	// Columns of the cells, the key's first; Keys is how many those are.
	Columns []Column
	Keys    int
	// Guard is the column that holds a row's offset; empty: there is none.
	Guard string
	Rows  []Row
}

// Row is one row of a Change.
type Row struct {
	// Cells as Server.Append made them; nil is NULL.
	Cells  [][]byte
	Offset uint64
	// Item is the caller's.
	Item int
	// Missing is set by Apply: an Update found no row.
	Missing bool
}

// Server is one database.
type Server interface {
	// Look reads a table's shape; nil: there is no such table.
	Look(ctx context.Context, name Name) (*Shape, error)
	// Create makes a table, with its schema, unless it is there. guard is the name of the offset's column, or empty.
	Create(ctx context.Context, name Name, fields []Field, guard string) error
	// Add adds columns, unless they are there; guard, when not empty, too.
	Add(ctx context.Context, name Name, fields []Field, guard string) error
	// Raw reports whether cells in this form are what Append would make of them.
	Raw(w schemas.Wire) bool
	// Append appends a value as a cell for a column.
	Append(dst []byte, v *cell.Value, to *Column, s *cell.Scratch) ([]byte, error)
	// Apply makes all changes in one transaction, or none. It sets Missing of rows. A *Fault says what is wrong.
	Apply(ctx context.Context, changes []*Change) error
	// Empty removes rows that are older than offset (all, where guard is empty), some at a time: call it until it
	// returns 0.
	Empty(ctx context.Context, name Name, guard string, offset uint64) (removed int, err error)
	// Check connects and finds what keeps the server from being written to as a whole.
	Check(ctx context.Context) []pipeline.Finding
	// Try asks the server whether a change of these columns would be allowed; nothing is written.
	Try(ctx context.Context, c *Change) error
	// Quoted is a name as it stands in a statement.
	Quoted(name Name) string
	// Close ends the connections. No other call runs or follows.
	Close() error
}

// Kind says what can be done about a Fault.
type Kind uint8

const (
	// Unknown: an attempt was spent.
	Unknown Kind = iota
	// Unfit: a row does not fit the table, now and later.
	Unfit
	// Conflict: a row does not fit what other rows are now (a unique index, a foreign key).
	Conflict
	// Again: the same may succeed at once (deadlock).
	Again
	// Changed: the table is not what Look said.
	Changed
	// Away: the server as a whole takes nothing (no connection, no right, no room, read-only).
	Away
	// TooLarge: it is more than the server takes at once.
	TooLarge
)

// Fault is an error of a server, without values of rows.
type Fault struct {
	Kind Kind
	// Code is the server's own.
	Code string
	// Text for people.
	Text string
	Err  error
}

// Error returns text and code.
func (f *Fault) Error() string {
	if f.Code == "" {
		return f.Text
	}
	return fmt.Sprintf("%s (%s)", f.Text, f.Code)
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// Shorten makes one line of at most a few hundred bytes.
func Shorten(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Unreachable is what a check says when a server does not answer as asked.
func Unreachable(err error) []pipeline.Finding {
	var f *Fault
	if errors.As(err, &f) && f.Code != "" {
		return []pipeline.Finding{{Level: "error", Code: "target_user", What: "the target refuses the connection: " + f.Error(), Cure: "correct user, password and database in url, or give the user the right to connect"}}
	}
	return []pipeline.Finding{{Level: "warning", Code: "unreachable", What: "the target does not answer: " + Shorten(err.Error()), Cure: "start it, or correct the url; until then the subscription waits and loses nothing"}}
}
