package records

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// NameFields are the fields that a NameTemplate may have.
var NameFields = []string{"source", "schema", "table", "subscription"}

// NameTemplate makes the name of what a table's records go to: text with fields in braces, like {source}.{schema}.{table}.
type NameTemplate struct {
	text, fields []string // text[i], then fields[i]; one more text than fields
}

// NameFieldError says that a template has a field that there is not.
type NameFieldError struct{ Field string }

// Error names the field and those that there are.
func (e *NameFieldError) Error() string {
	return fmt.Sprintf("there is no field {%s}; there are {%s}", e.Field, strings.Join(NameFields, "}, {"))
}

// ParseNameTemplate reads a template. A field that is not known is a *NameFieldError.
func ParseNameTemplate(s string) (*NameTemplate, error) {
	t := &NameTemplate{}
	rest := s
	for {
		text, after, open := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return nil, errors.New("a } without its {")
		}
		t.text = append(t.text, text)
		if !open {
			return t, nil
		}
		field, behind, closed := strings.Cut(after, "}")
		if !closed {
			return nil, errors.New("a { without its }")
		}
		if !slices.Contains(NameFields, field) {
			return nil, &NameFieldError{field}
		}
		t.fields = append(t.fields, field)
		rest = behind
	}
}

// Texts are the parts of the template between its fields.
func (t *NameTemplate) Texts() []string { return t.text }

// Has reports whether the field stands in the template.
func (t *NameTemplate) Has(field string) bool { return slices.Contains(t.fields, field) }

// Name is that of a table; nil: of what belongs to none, whose {schema} is leat and {table} messages. clean makes of a
// field's value what the name may hold; nil: it may hold everything.
func (t *NameTemplate) Name(source, subscription string, table *schemas.Table, clean func(string) string) string {
	values := map[string]string{"source": source, "subscription": subscription, "schema": "leat", "table": "messages"}
	if table != nil {
		values["schema"], values["table"] = table.Schema, table.Name
	}
	var b strings.Builder
	for i, text := range t.text {
		b.WriteString(text)
		if i == len(t.fields) {
			break
		}
		value := values[t.fields[i]]
		if clean != nil {
			value = clean(value)
		}
		b.WriteString(value)
	}
	return b.String()
}
