package yamltree

import (
	"regexp"
	"strings"
)

// Piece is a part of a scalar: literal text, or a reference.
type Piece struct {
	Text   string // literal
	Name   string // variable; "" in a literal piece
	Def    string // default
	HasDef bool
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// SplitReferences cuts a scalar into literals and references. $${ stands for ${.
func SplitReferences(s string) ([]Piece, *Problem) {
	var out []Piece
	lit := ""
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			break
		}
		if i > 0 && s[i-1] == '$' {
			lit += s[:i-1] + "${"
			s = s[i+2:]
			continue
		}
		lit += s[:i]
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			return nil, Wrong("a reference is not closed").Fix("write ${NAME} or ${NAME:-default}; $${ stands for the characters ${")
		}
		name, def, hasDef := strings.Cut(s[i+2:i+end], ":-")
		if !variable.MatchString(name) {
			return nil, Wrong("a reference does not name a variable").Fix("write ${NAME} or ${NAME:-default}; a name is letters, digits and _; $${ stands for the characters ${")
		}
		if lit != "" {
			out = append(out, Piece{Text: lit})
			lit = ""
		}
		out = append(out, Piece{Name: name, Def: def, HasDef: hasDef})
		s = s[i+end+1:]
	}
	if lit+s != "" || len(out) == 0 {
		out = append(out, Piece{Text: lit + s})
	}
	return out, nil
}

// MaskDefaults hides the defaults of references: they may be secrets.
func MaskDefaults(raw string) string {
	pieces, p := SplitReferences(raw)
	if p != nil {
		return Mask
	}
	var b strings.Builder
	for _, p := range pieces {
		switch {
		case p.Name == "":
			b.WriteString(strings.ReplaceAll(p.Text, "${", "$${"))
		case p.HasDef:
			b.WriteString("${" + p.Name + ":-" + Mask + "}")
		default:
			b.WriteString("${" + p.Name + "}")
		}
	}
	return b.String()
}
