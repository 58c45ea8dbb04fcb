package yamltree

import (
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"
)

// Mask stands in the place of a secret in everything that is printed.
const Mask = "********"

var (
	// secretKey finds fields whose value is not shown, whatever stands there,
	// also where the name is none of ours.
	secretKey = regexp.MustCompile(`(?i)secret|passw|pwd|credential|authorization|headers|private_?key|api_?key|access_?key|token`)
	// secretText finds what is a secret by its looks: the password of a URL
	// (also of one that lost its @), webhook secrets, secret query parameters.
	secretText = []*regexp.Regexp{
		regexp.MustCompile(`://[^\s:/@"']*:(\S+)@`),
		regexp.MustCompile(`:([^\s/]\S*)@`),
		regexp.MustCompile(`://[^\s:/@"'\[]+:([0-9]*[^\s0-9/?#"'@][^\s"'@]*)`),
		regexp.MustCompile(`(wh(?:sec|sk)_[^\s"',}\]]+)`),
		regexp.MustCompile(`(?i)[?&][a-z_-]*(?:token|secret|passw|pwd|key|sig|auth)[a-z_-]*=([^&\s"'#]+)`),
	}
	// Reference matches what consists of references alone, defaults masked.
	Reference = regexp.MustCompile(`^(?:\$\{[A-Za-z_][A-Za-z0-9_]*(?::-\*{8})?\})+$`)
)

// span is a stretch of characters of one line that is not shown.
type span struct{ from, to int }

// secretKeyName says whether the value of a field of this name is a secret, a
// misspelt name included.
func secretKeyName(name string) bool {
	if name == "tokens" {
		return false
	}
	return secretKey.MatchString(name) || distance(name, "secret") <= 2 || distance(name, "headers") <= 2
}

// secretSpans finds what must not be shown of a line.
func (d *Document) secretSpans(line int) []span {
	text := d.lines[line-1]
	spans := textSpans(text)
	if d.Root == nil || d.broken {
		return append(spans, d.brokenSpans(line)...)
	}
	for i, n := range d.order {
		if !n.Secret || n.Line > line || n.Kind == KindMap || n.Kind == KindSeq || harmless(n.Raw) {
			continue
		}
		if _, ok := scalarEnd(d.lines[n.Line-1], n); ok && n.Line < line {
			continue
		}
		endLine, endCol := len(d.lines)+1, 1
		if i+1 < len(d.order) {
			endLine, endCol = d.order[i+1].Line, d.order[i+1].Col
		}
		if n.Line == line {
			if to, ok := scalarEnd(text, n); ok {
				spans = append(spans, span{n.Col - 1, to})
				continue
			}
		}
		s := span{0, utf8.RuneCountInString(text)}
		if n.Line == line {
			s.from = n.Col - 1
		}
		if endLine == line {
			s.to = endCol - 1
		}
		if endLine >= line {
			spans = append(spans, s)
		}
	}
	return spans
}

// harmless says whether a secret's text only names where the secret is.
func harmless(raw string) bool {
	return Reference.MatchString(raw) || strings.HasPrefix(raw, "file:") && !strings.ContainsAny(raw, "\n")
}

// scalarEnd finds the end of a scalar that stands on one line.
func scalarEnd(line string, n *Node) (int, bool) {
	r := []rune(line)
	if n.Col < 1 || n.Col > len(r) {
		return 0, false
	}
	rest := r[n.Col-1:]
	for _, q := range []string{n.Raw, `"` + n.Raw + `"`, "'" + n.Raw + "'"} {
		if q != "" && strings.HasPrefix(string(rest), q) {
			return n.Col - 1 + utf8.RuneCountInString(q), true
		}
	}
	return 0, false
}

// brokenSpans masks a line of a file that is no YAML. There is no tree to say
// what belongs to what, and indentation is what may be broken: once a secret's
// name has occurred, every word that is not one of our fields is masked.
func (d *Document) brokenSpans(line int) []span {
	found := false
	for _, text := range d.lines[:line] {
		for _, word := range keyPattern.FindAllString(text, -1) {
			found = found || secretKeyName(word)
		}
	}
	if !found {
		return nil
	}
	text, known := d.lines[line-1], d.fields()
	var spans []span
	for _, m := range wordPattern.FindAllStringIndex(text, -1) {
		if !known[text[m[0]:m[1]]] {
			spans = append(spans, span{utf8.RuneCountInString(text[:m[0]]), utf8.RuneCountInString(text[:m[1]])})
		}
	}
	return spans
}

var (
	keyPattern  = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
	wordPattern = regexp.MustCompile("[^\\s{}\\[\\],:\"'#|>&!]+")
)

func textSpans(text string) []span {
	var spans []span
	for _, re := range secretText {
		for _, m := range re.FindAllStringSubmatchIndex(text, -1) {
			if !Reference.MatchString(text[m[2]:m[3]]) {
				spans = append(spans, span{utf8.RuneCountInString(text[:m[2]]), utf8.RuneCountInString(text[:m[3]])})
			}
		}
	}
	return spans
}

// maskSpans replaces the spans of a line by the mask and moves the caret along.
func maskSpans(line []rune, caret int, spans []span) (string, int) {
	sort.Slice(spans, func(i, j int) bool { return spans[i].from < spans[j].from })
	var b []rune
	at, out := 0, caret
	for k := 0; k < len(spans); {
		from, to := max(spans[k].from, at), spans[k].to
		for k++; k < len(spans) && spans[k].from <= to; k++ {
			to = max(to, spans[k].to)
		}
		to = min(to, len(line))
		if from >= to {
			continue
		}
		b = append(b, line[at:from]...)
		switch {
		case caret >= to:
			out += len(Mask) - (to - from)
		case caret > from:
			out = len(b)
		}
		b = append(b, []rune(Mask)...)
		at = to
	}
	return string(append(b, line[at:]...)), out
}

// MaskText masks what looks like a secret in any text.
func MaskText(s string) string {
	out, _ := maskSpans([]rune(s), 0, textSpans(s))
	return out
}
