// Package statement tells what a statement that MySQL or MariaDB logged as text touches: which tables
// change their shape, lose their rows, or were changed without row events.
//
// It reads tokens, not grammar: dialects differ and grow. What it must be sure of is which tables a
// statement names at the places where tables stand; for the rest it errs on the side of naming more.
package statement

import "strings"

// Options say how the server read the statement.
type Options struct {
	// Schema is the current database, which names without one belong to.
	Schema string
	// ANSIQuotes and NoBackslash are the session's sql_mode.
	ANSIQuotes, NoBackslash bool
	// Version of the server, as in its executable comments (80404, 101100); 0 = obey all.
	Version int
	MariaDB bool
	// Fold: the server keeps names in lower case (lower_case_table_names).
	Fold bool
}

// Name of a table.
type Name struct{ Schema, Table string }

// Kind is what a statement does.
type Kind uint8

// The kinds.
const (
	Other Kind = iota // nothing that matters here: users, views, routines, settings, …
	Begin
	Commit
	Rollback
	Savepoint
	RollbackTo
	XAStart
	XAEnd
	XACommit
	XARollback
	Change   // INSERT, UPDATE, DELETE, REPLACE, LOAD: rows of Tables changed without row events
	Opaque   // SELECT, CALL, DO, …: rows of tables it does not name may have changed
	Truncate // Tables are empty
	Create
	Alter
	Rename
	Drop
	DropSchema // Tables has one Name without a table
)

// Statement is what was found out.
type Statement struct {
	Kind Kind
	// Tables are those that the statement is about.
	Tables []Name
	// Taken are the names that tables take by renaming.
	Taken []Name
	// Rows: besides the shape, rows change without row events (a partition dropped or exchanged, a
	// tablespace imported, CREATE … SELECT in statement format).
	Rows bool
	// Temporary tables are one session's own.
	Temporary bool
	// Opens: row events and a commit follow (CREATE TABLE … START TRANSACTION).
	Opens bool
	// Maybe: CREATE … IF NOT EXISTS; the table may have been there.
	Maybe bool
	// Replaces: CREATE OR REPLACE; what had the name is gone.
	Replaces bool
	// Values: a column may begin with a value (DEFAULT but not DEFAULT NULL, a generated column).
	Values bool
	// Renames are columns that get another name, all at once: from, to. Dropped are columns that go, before others
	// come. Converts says that one may get another type.
	Renames  [][2]string
	Dropped  []string
	Converts bool
	// Secret: it may hold a password (CONNECTION of a FEDERATED table, ENCRYPTION_KEY and the like).
	Secret bool
}

// Read reads one statement.
func Read(statement string, o Options) Statement {
	l := &lexer{s: statement, o: &o}
	p := parser{l: l, o: &o}
	for l.acceptPunct('(') {
	}
	t := l.next()
	switch {
	case t.is("BEGIN"), t.is("START") && (l.peek().is("TRANSACTION")):
		return Statement{Kind: Begin}
	case t.is("COMMIT"):
		return Statement{Kind: Commit}
	case t.is("ROLLBACK"):
		l.accept("WORK")
		if l.accept("TO") {
			return Statement{Kind: RollbackTo}
		}
		return Statement{Kind: Rollback}
	case t.is("SAVEPOINT"):
		return Statement{Kind: Savepoint}
	case t.is("XA"):
		return Statement{Kind: p.xa()}
	case t.is("INSERT", "REPLACE"):
		return p.insert()
	case t.is("UPDATE"):
		return p.update()
	case t.is("DELETE"):
		return p.delete()
	case t.is("LOAD"):
		return p.load()
	case t.is("WITH"):
		return p.with()
	case t.is("SELECT", "CALL", "DO", "VALUES", "TABLE", "HANDLER", "EXECUTE", "IMPORT"):
		return Statement{Kind: Opaque}
	}
	return p.definition(t)
}

// definition reads statements about the shape of tables.
func (p *parser) definition(t token) Statement {
	switch {
	case t.is("TRUNCATE"):
		p.l.accept("TABLE")
		return Statement{Kind: Truncate, Tables: p.names(nil)}
	case t.is("CREATE"):
		return p.create()
	case t.is("ALTER"):
		return p.alter()
	case t.is("RENAME"):
		return p.rename()
	case t.is("DROP"):
		return p.drop()
	}
	return Statement{}
}

// parser has what the readers of single statements share.
type parser struct {
	l *lexer
	o *Options
}

func (p *parser) fold(s string) string {
	if p.o.Fold {
		return strings.ToLower(s)
	}
	return s
}

// name reads [schema.]table; ok is false, and nothing taken, when no name comes.
func (p *parser) name() (n Name, ok bool) {
	l := p.l
	dot := l.acceptPunct('.') // ".t" is "t" of no other schema
	if !l.peek().named() {
		return n, false
	}
	first := l.next().text
	if !dot && l.acceptPunct('.') {
		if !l.peek().named() {
			return n, false
		}
		return Name{p.fold(first), p.fold(l.next().text)}, true
	}
	return Name{p.fold(p.o.Schema), p.fold(first)}, true
}

// names reads a list of names separated by commas.
func (p *parser) names(list []Name) []Name {
	for {
		n, ok := p.name()
		if !ok {
			return list
		}
		list = append(list, n)
		if !p.l.acceptPunct(',') {
			return list
		}
	}
}

func (p *parser) ifExists() (is bool) {
	if is = p.l.accept("IF"); is {
		p.l.accept("NOT")
		p.l.accept("EXISTS")
	}
	return is
}

// skipParens passes over what stands in parentheses, the first of which was taken.
func (p *parser) skipParens() {
	for depth := 1; depth > 0; {
		switch t := p.l.next(); {
		case t.kind == end:
			return
		case t.punct('('):
			depth++
		case t.punct(')'):
			depth--
		}
	}
}

func (p *parser) xa() Kind {
	t := p.l.next()
	switch {
	case t.is("START", "BEGIN"):
		return XAStart
	case t.is("END"):
		return XAEnd
	case t.is("COMMIT"):
		return XACommit
	case t.is("ROLLBACK"):
		return XARollback
	}
	return Other
}
