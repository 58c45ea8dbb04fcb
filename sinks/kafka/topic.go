package kafka

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas"
)

// TopicFields are the fields that a Template may name.
var TopicFields = []string{"source", "schema", "table", "subscription"}

// Template makes the name of a topic: text with fields in braces, like {source}.{schema}.{table}.
type Template struct {
	text, fields []string // text[i], then fields[i]; one more text than fields
}

// maxTopic is the longest name that Kafka allows.
const maxTopic = 249

// FieldError says that a template names a field that there is not.
type FieldError struct{ Field string }

// Error names the field and those that there are.
func (e *FieldError) Error() string {
	return fmt.Sprintf("there is no field {%s}; there are {%s}", e.Field, strings.Join(TopicFields, "}, {"))
}

// ParseTemplate reads a template. A field that is not known is a *FieldError.
func ParseTemplate(s string) (*Template, error) {
	t := &Template{}
	rest := s
	for {
		text, after, open := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return nil, fmt.Errorf("a } without its {")
		}
		if name, bad := illegal(text); bad {
			return nil, fmt.Errorf("a topic's name cannot have %q: letters, digits, ., _ and -", name)
		}
		t.text = append(t.text, text)
		if !open {
			break
		}
		field, behind, closed := strings.Cut(after, "}")
		if !closed {
			return nil, fmt.Errorf("a { without its }")
		}
		if !slices.Contains(TopicFields, field) {
			return nil, &FieldError{field}
		}
		t.fields = append(t.fields, field)
		rest = behind
	}
	if len(t.fields) == 0 && (s == "" || s == "." || s == ".." || len(s) > maxTopic) {
		return nil, fmt.Errorf("a topic's name has 1 to %d characters and is not . or ..", maxTopic)
	}
	return t, nil
}

func illegal(text string) (string, bool) {
	i := strings.IndexFunc(text, func(r rune) bool { return !legal(r) })
	if i < 0 {
		return "", false
	}
	r := []rune(text[i:])
	return string(r[0]), true
}

func legal(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
}

// name is the topic of a table; nil: of what belongs to none, whose {schema} is leat and {table} messages. What a
// topic's name cannot hold becomes _.
func (t *Template) name(source, subscription string, table *schemas.Table) (string, error) {
	schema, name := "leat", "messages"
	if table != nil {
		schema, name = table.Schema, table.Name
	}
	var b strings.Builder
	for i, text := range t.text {
		b.WriteString(text)
		if i == len(t.fields) {
			break
		}
		value := map[string]string{"source": source, "schema": schema, "table": name, "subscription": subscription}[t.fields[i]]
		b.WriteString(strings.Map(func(r rune) rune {
			if legal(r) {
				return r
			}
			return '_'
		}, value))
	}
	if b.Len() == 0 || b.Len() > maxTopic {
		return "", fmt.Errorf("the topic of %s.%s has a name of %d characters; Kafka allows 1 to %d: make the template shorter", schema, name, b.Len(), maxTopic)
	}
	return b.String(), nil
}

// partitionOf is the partition that Java's default partitioner gives a record of that key: murmur2, positive, modulo.
// https://github.com/apache/kafka/blob/4.0.0/clients/src/main/java/org/apache/kafka/clients/producer/internals/BuiltInPartitioner.java
func partitionOf(key []byte, partitions int) int {
	return int(murmur2(key)&0x7fffffff) % partitions
}

// murmur2 as Kafka has it: seed 0x9747b28c, words little-endian.
// https://github.com/apache/kafka/blob/4.0.0/clients/src/main/java/org/apache/kafka/common/utils/Utils.java
func murmur2(p []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(p))
	for ; len(p) >= 4; p = p[4:] {
		k := uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16 | uint32(p[3])<<24
		k *= m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	switch len(p) {
	case 3:
		h ^= uint32(p[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(p[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(p[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
