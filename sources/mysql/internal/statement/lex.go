package statement

import "strings"

// kind of a token.
type kind uint8

const (
	end    kind = iota
	word        // an unquoted word: a keyword or a name
	quoted      // a quoted name
	text        // a string
	number
	punct // one byte
)

// token is a piece of a statement.
type token struct {
	kind kind
	text string // of names without quotes; of strings empty
}

// is tells whether the token is one of the keywords, given in upper case.
func (t token) is(keywords ...string) bool {
	if t.kind != word {
		return false
	}
	for _, k := range keywords {
		if len(k) == len(t.text) && strings.EqualFold(k, t.text) {
			return true
		}
	}
	return false
}

func (t token) punct(c byte) bool { return t.kind == punct && t.text[0] == c }

// named tells whether the token can be (a part of) a name.
func (t token) named() bool { return t.kind == word || t.kind == quoted }

// lexer cuts a statement into tokens as the server's own does: comments are skipped, the inside of
// executable comments that this server obeys is not.
type lexer struct {
	s      string
	at     int
	o      *Options
	inside int // executable comments that are open
	peeked bool
	next_  token
	dotted bool // the last token was a dot: what follows is a name, whatever it begins with
}

func (l *lexer) peek() token {
	if !l.peeked {
		l.next_, l.peeked = l.read(), true
	}
	return l.next_
}

func (l *lexer) next() token {
	t := l.peek()
	l.peeked = false
	return t
}

// accept takes the next token when it is one of the keywords.
func (l *lexer) accept(keywords ...string) bool {
	if l.peek().is(keywords...) {
		l.peeked = false
		return true
	}
	return false
}

func (l *lexer) acceptPunct(c byte) bool {
	if l.peek().punct(c) {
		l.peeked = false
		return true
	}
	return false
}

func (l *lexer) byte(i int) byte {
	if i < len(l.s) {
		return l.s[i]
	}
	return 0
}

func (l *lexer) read() token {
	l.skip()
	after := l.dotted
	l.dotted = false
	if l.at >= len(l.s) {
		return token{}
	}
	c := l.s[l.at]
	switch {
	case c == '`', c == '"' && l.o.ANSIQuotes:
		return token{quoted, l.quote(c, false)}
	case c == '\'' || c == '"':
		l.quote(c, !l.o.NoBackslash)
		return token{kind: text}
	case (c == 'x' || c == 'X' || c == 'b' || c == 'B' || c == 'n' || c == 'N') && l.byte(l.at+1) == '\'':
		l.at++
		l.quote('\'', !l.o.NoBackslash)
		return token{kind: text}
	case inName(c):
		from := l.at
		for l.at < len(l.s) && inName(l.s[l.at]) {
			l.at++
		}
		w := l.s[from:l.at]
		if !after && isNumber(w) {
			return token{number, w}
		}
		return token{word, w}
	}
	l.at++
	l.dotted = c == '.'
	return token{punct, l.s[l.at-1 : l.at]}
}

func inName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// isNumber tells numbers from names that begin with a digit, which both servers allow.
func isNumber(w string) bool {
	if w[0] < '0' || w[0] > '9' {
		return false
	}
	digits := strings.TrimLeft(w, "0123456789")
	switch {
	case digits == "":
		return true
	case digits[0] == 'e' || digits[0] == 'E': // 1e5
		return len(digits) > 1 && strings.Trim(digits[1:], "0123456789") == ""
	case w[0] == '0' && (digits[0] == 'x' || digits[0] == 'b'):
		return len(digits) > 1 && strings.Trim(digits[1:], "0123456789abcdefABCDEF") == ""
	}
	return false
}

// quote reads from the quote at l.at to its end and returns what is between, doubled quotes undone.
func (l *lexer) quote(q byte, backslash bool) string {
	l.at++
	from, doubled := l.at, false
	for l.at < len(l.s) {
		switch c := l.s[l.at]; {
		case c == '\\' && backslash:
			l.at++
		case c == q && l.byte(l.at+1) == q:
			l.at++
			doubled = true
		case c == q:
			inner := l.s[from:l.at]
			l.at++
			if doubled {
				inner = strings.ReplaceAll(inner, string([]byte{q, q}), string(q))
			}
			return inner
		}
		l.at++
	}
	l.at = len(l.s)
	return l.s[min(from, len(l.s)):]
}

// skip passes over white space and comments, and into executable comments.
func (l *lexer) skip() {
	for l.at < len(l.s) {
		switch c := l.s[l.at]; {
		case c == ' ' || c >= '\t' && c <= '\r':
			l.at++
		case c == '#', c == '-' && l.byte(l.at+1) == '-' && (l.byte(l.at+2) <= ' '):
			if i := strings.IndexByte(l.s[l.at:], '\n'); i >= 0 {
				l.at += i + 1
			} else {
				l.at = len(l.s)
			}
		case c == '*' && l.inside > 0 && l.byte(l.at+1) == '/':
			l.inside--
			l.at += 2
		case c == '/' && l.byte(l.at+1) == '*':
			if !l.enter() {
				l.comment()
			}
		default:
			return
		}
	}
}

// enter steps into an executable comment that this server obeys: /*! … */, /*!50110 … */, and MariaDB's
// own /*M! … */, /*M!100100 … */.
func (l *lexer) enter() bool {
	i := l.at + 2
	own := l.o.MariaDB && (l.byte(i) == 'M' || l.byte(i) == 'm') && l.byte(i+1) == '!'
	if own {
		i++
	}
	if l.byte(i) != '!' {
		return false
	}
	i++
	version, n := 0, 0
	for n < 6 && l.byte(i+n) >= '0' && l.byte(i+n) <= '9' {
		version = version*10 + int(l.byte(i+n)-'0')
		n++
	}
	switch {
	case n < 5:
		n = 0 // no version: always obeyed
	case version > l.o.Version && l.o.Version > 0:
		return false
	case l.o.MariaDB && !own && version >= 50700 && version <= 99999:
		return false // MariaDB leaves to MySQL what MySQL added since they parted
	}
	l.at = i + n
	l.inside++
	return true
}

// comment passes over a comment; those inside a comment that is not obeyed end it no sooner.
func (l *lexer) comment() {
	nested := l.byte(l.at+2) == '!' || l.byte(l.at+3) == '!'
	l.at += 2
	for l.at < len(l.s) {
		switch {
		case l.s[l.at] == '*' && l.byte(l.at+1) == '/':
			l.at += 2
			return
		case nested && l.s[l.at] == '/' && l.byte(l.at+1) == '*':
			l.comment()
		default:
			l.at++
		}
	}
}
