package nats

import (
	"errors"
	"fmt"
	"strings"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/sinks/encode/records"
)

// ParseSubject reads the template of a subject. A field that is not known is a *records.NameFieldError.
func ParseSubject(s string) (*records.NameTemplate, error) {
	t, err := records.ParseNameTemplate(s)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(strings.Join(t.Texts(), ""), func(r rune) bool { return r != '.' && special(r) }) || strings.HasPrefix(s, "$") || strings.HasPrefix(s, "_INBOX") {
		return nil, errors.New("a subject holds no space, * or >, and begins with neither $ nor _INBOX")
	}
	for token := range strings.SplitSeq(s, ".") {
		if token == "" {
			return nil, errors.New("a subject has something before, behind and between its dots")
		}
	}
	return t, nil
}

// special are characters that mean something in a subject, or that servers refuse.
func special(r rune) bool { return r <= ' ' || r == 0x7f || r == '.' || r == '*' || r == '>' }

// Escape makes one token of a subject of a name: what means something there, and %, are written as %XX.
func Escape(name string) string {
	if name == "" {
		return "%"
	}
	if !strings.ContainsFunc(name, func(r rune) bool { return special(r) || r == '%' }) && name[0] != '$' {
		return name
	}
	var b strings.Builder
	for i := range len(name) {
		if ch := name[i]; special(rune(ch)) || ch == '%' || ch == '$' && i == 0 {
			fmt.Fprintf(&b, "%%%02X", ch)
		} else {
			b.WriteByte(ch)
		}
	}
	return b.String()
}

// subject is that of a table's messages.
func (s *Sink) subject(t *schemas.Table) string {
	return s.o.Subject.Name(s.o.Source, s.o.Subscription, t, Escape)
}

// Wildcard covers the subjects of all tables.
func Wildcard(t *records.NameTemplate, source, subscription string) string {
	const any = "\x00"
	name := t.Name(source, subscription, &schemas.Table{Schema: any, Name: any}, func(v string) string {
		if v == any {
			return any
		}
		return Escape(v)
	})
	tokens := strings.Split(name, ".")
	for i, token := range tokens {
		if strings.Contains(token, any) {
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, ".")
}

// covers reports whether a stream of that pattern takes messages of the subject.
func covers(pattern, subject string) bool {
	for {
		p, restP, moreP := strings.Cut(pattern, ".")
		t, restS, moreS := strings.Cut(subject, ".")
		switch {
		case p == ">":
			return true
		case p != "*" && p != t:
			return false
		case !moreP || !moreS:
			return moreP == moreS
		}
		pattern, subject = restP, restS
	}
}
