package statement

import "strings"

func (p *parser) create() Statement {
	l := p.l
	s := Statement{Kind: Create, Replaces: l.accept("OR") && l.accept("REPLACE")}
	for {
		switch {
		case l.accept("TEMPORARY"):
			s.Temporary = true
		case l.accept("ONLINE", "OFFLINE", "UNIQUE", "FULLTEXT", "SPATIAL", "VECTOR"):
		case l.accept("TABLE"):
			s.Maybe = p.ifExists()
			if n, ok := p.name(); ok {
				s.Tables = append(s.Tables, n)
			}
			p.rest(&s)
			return s
		case l.accept("INDEX"):
			return p.index()
		default:
			return Statement{}
		}
	}
}

// rest looks through a CREATE TABLE behind its name.
func (p *parser) rest(s *Statement) {
	for {
		switch t := p.l.next(); {
		case t.kind == end:
			return
		case t.is("SELECT"):
			s.Rows = true // in row format the server writes the statement without it
		case t.is("CONNECTION", "PASSWORD"):
			s.Secret = true
		case t.is("START"):
			if p.l.accept("TRANSACTION") && p.l.peek().kind == end {
				s.Opens = true
			}
		}
	}
}

// index reads CREATE|DROP INDEX … ON table.
func (p *parser) index() Statement {
	for {
		switch t := p.l.next(); {
		case t.kind == end:
			return Statement{}
		case t.is("ON"):
			n, ok := p.name()
			if !ok {
				return Statement{}
			}
			return Statement{Kind: Alter, Tables: []Name{n}}
		}
	}
}

func (p *parser) alter() Statement {
	l := p.l
	for l.accept("ONLINE", "OFFLINE", "IGNORE") {
	}
	if !l.accept("TABLE") {
		return Statement{}
	}
	p.ifExists()
	n, ok := p.name()
	if !ok {
		return Statement{}
	}
	s := Statement{Kind: Alter, Tables: []Name{n}}
	var before token
	for {
		t := l.next()
		switch {
		case t.kind == end:
			return s
		case t.punct('('):
			p.skipColumns(&s)
		case t.is("RENAME"):
			p.renameTo(&s)
		case t.is("CHANGE"):
			p.renameColumn(&s)
		case t.is("DROP"):
			p.dropColumn(&s)
		case t.is("PARTITION", "PARTITIONING") && before.is("DROP", "TRUNCATE", "EXCHANGE", "CONVERT", "COALESCE", "DISCARD", "IMPORT"):
			s.Rows = s.Rows || before.is("DROP", "TRUNCATE", "EXCHANGE", "CONVERT", "DISCARD", "IMPORT")
		case t.is("TABLESPACE") && before.is("IMPORT", "DISCARD"):
			s.Rows = true
		case t.is("TABLE") && before.is("WITH", "TO", "CONVERT"): // of a partition exchanged or converted
			if other, ok := p.name(); ok {
				s.Tables, s.Rows = append(s.Tables, other), true
			}
		default:
			p.value(t, &s)
		}
		before = t
	}
}

// value notes what a word in a definition says about the values of columns.
func (p *parser) value(t token, s *Statement) {
	switch {
	case t.is("DEFAULT"):
		s.Values = s.Values || !p.l.peek().is("NULL")
	case t.is("AS"):
		s.Values = s.Values || p.l.peek().punct('(')
	case t.is("MODIFY", "CONVERT"):
		s.Converts = true
	case t.is("CONNECTION", "PASSWORD"):
		s.Secret = true
	}
}

// dropColumn reads what follows DROP in an ALTER TABLE when it is a column.
func (p *parser) dropColumn(s *Statement) {
	if !p.l.accept("COLUMN") && p.l.peek().is("INDEX", "KEY", "PRIMARY", "FOREIGN", "CONSTRAINT", "CHECK", "PARTITION", "PARTITIONING", "DEFAULT", "SYSTEM", "PERIOD") {
		return
	}
	p.ifExists()
	if p.l.peek().named() {
		s.Dropped = append(s.Dropped, p.l.next().text)
	}
}

// renameColumn reads a CHANGE.
func (p *parser) renameColumn(s *Statement) {
	s.Converts = true
	p.l.accept("COLUMN")
	p.ifExists()
	if from, to := p.l.next(), p.l.next(); from.named() && to.named() && from.text != to.text {
		s.Renames = append(s.Renames, [2]string{from.text, to.text})
	}
}

// skipColumns passes over parentheses and notes what matters in them.
func (p *parser) skipColumns(s *Statement) {
	for depth := 1; depth > 0; {
		switch t := p.l.next(); {
		case t.kind == end:
			return
		case t.punct('('):
			depth++
		case t.punct(')'):
			depth--
		default:
			p.value(t, s)
		}
	}
}

// renameTo reads what follows RENAME in an ALTER TABLE.
func (p *parser) renameTo(s *Statement) {
	if p.l.accept("COLUMN") {
		p.ifExists()
		from := p.l.next()
		if p.l.accept("TO"); from.named() && p.l.peek().named() {
			s.Renames = append(s.Renames, [2]string{from.text, p.l.next().text})
		}
		return
	}
	if p.l.accept("INDEX", "KEY") {
		return
	}
	p.l.accept("TO", "AS")
	p.l.acceptPunct('=')
	if n, ok := p.name(); ok {
		s.Taken = append(s.Taken, n)
	}
}

func (p *parser) rename() Statement {
	if !p.l.accept("TABLE", "TABLES") {
		return Statement{}
	}
	p.ifExists()
	s := Statement{Kind: Rename}
	for {
		from, ok := p.name()
		if !ok {
			return s
		}
		s.Tables = append(s.Tables, from)
		for t := p.l.next(); !t.is("TO"); t = p.l.next() { // WAIT n, NOWAIT
			if t.kind == end {
				return s
			}
		}
		to, ok := p.name()
		if !ok {
			return s
		}
		s.Taken = append(s.Taken, to)
		if !p.l.acceptPunct(',') {
			return s
		}
	}
}

func (p *parser) drop() Statement {
	l := p.l
	s := Statement{Kind: Drop}
	for l.accept("TEMPORARY", "ONLINE", "OFFLINE") {
		s.Temporary = true
	}
	switch {
	case l.accept("TABLE", "TABLES"):
		p.ifExists()
		s.Tables = p.names(nil)
		return s
	case l.accept("DATABASE", "SCHEMA"):
		p.ifExists()
		if n, ok := p.name(); ok {
			return Statement{Kind: DropSchema, Tables: []Name{{Schema: n.Table}}}
		}
	case l.accept("INDEX"):
		return p.index()
	}
	return Statement{}
}

// Mentions tells whether the statement has the name anywhere, quoted or not, in any case.
func Mentions(statement, name string, o Options) bool {
	l := &lexer{s: statement, o: &o}
	for {
		switch t := l.next(); {
		case t.kind == end:
			return false
		case t.named() && strings.EqualFold(t.text, name):
			return true
		}
	}
}
