package statement

// Rows changed in statement format: the tables whose rows may have changed are all those that stand
// where a target can.

func (p *parser) insert() Statement {
	p.modifiers()
	p.l.accept("INTO")
	s := Statement{Kind: Change}
	if n, ok := p.name(); ok {
		s.Tables = append(s.Tables, n)
	}
	return s
}

func (p *parser) modifiers() {
	for p.l.accept("LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "QUICK", "IGNORE", "CONCURRENT", "LOCAL") {
	}
}

func (p *parser) update() Statement {
	p.modifiers()
	return Statement{Kind: Change, Tables: p.references(nil, "SET")}
}

// delete reads DELETE FROM t …, DELETE t1, t2.* FROM references and DELETE FROM t1 USING references.
func (p *parser) delete() Statement {
	p.modifiers()
	s := Statement{Kind: Change}
	if !p.l.accept("FROM") {
		s.Tables = p.targets(nil)
		p.l.accept("FROM")
	} else {
		s.Tables = p.targets(nil)
		if p.l.peek().kind == end || p.l.peek().punct(';') {
			// No condition: that is how the server tells that a MEMORY table lost its rows in a restart.
			if len(s.Tables) == 1 {
				s.Kind = Truncate
			}
			return s
		}
		if !p.l.accept("USING") {
			return s
		}
	}
	s.Tables = p.references(s.Tables, "WHERE", "ORDER", "LIMIT", "RETURNING")
	return s
}

// targets reads t1, s.t2.*, t3.
func (p *parser) targets(list []Name) []Name {
	for {
		n, ok := p.name()
		if !ok {
			return list
		}
		if p.l.acceptPunct('.') {
			p.l.acceptPunct('*')
		} else if p.l.acceptPunct('*') {
			// s.* was read up to its dot
			n.Table = ""
		}
		list = append(list, n)
		if !p.l.acceptPunct(',') {
			return list
		}
	}
}

// references reads table references up to one of the keywords outside of parentheses: names stand at
// the beginning, behind commas, joins and opening parentheses. Subqueries are only read from.
func (p *parser) references(list []Name, until ...string) []Name {
	place := true
	for {
		t := p.l.peek()
		switch {
		case t.kind == end || t.is(until...):
			return list
		case t.punct('('):
			p.l.next()
			if p.l.peek().is("SELECT", "WITH", "VALUES", "TABLE") || !place {
				p.skipParens()
				place = false
			}
		case t.punct(','), t.is("JOIN", "STRAIGHT_JOIN"):
			p.l.next()
			place = true
		case t.punct('{'): // { OJ t1 LEFT JOIN … }
			p.l.next()
			p.l.next()
			place = true
		case place && t.named():
			if n, ok := p.name(); ok {
				list = append(list, n)
			}
			place = false
		default:
			p.l.next()
		}
	}
}

// load reads LOAD DATA|XML … INTO TABLE name.
func (p *parser) load() Statement {
	s := Statement{Kind: Change}
	for {
		switch t := p.l.next(); {
		case t.kind == end:
			return Statement{Kind: Opaque}
		case t.is("INTO"):
			if p.l.accept("TABLE") {
				if n, ok := p.name(); ok {
					s.Tables = append(s.Tables, n)
				}
				return s
			}
		}
	}
}

// with finds the statement behind common table expressions.
func (p *parser) with() Statement {
	for {
		switch t := p.l.next(); {
		case t.kind == end, t.is("SELECT", "VALUES", "TABLE"):
			return Statement{Kind: Opaque}
		case t.punct('('):
			p.skipParens()
		case t.is("UPDATE"):
			return p.update()
		case t.is("DELETE"):
			return p.delete()
		case t.is("INSERT", "REPLACE"):
			return p.insert()
		}
	}
}
