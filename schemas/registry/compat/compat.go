// Package compat judges whether readers of one schema can read what was written with another.
//
// Avro goes by the rules of its specification (schema resolution). Protobuf and JSON Schema have none of their own:
// the rules here are written down in docs/schemas.md, and every one has a test.
package compat

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/leat-cdc/leat/schemas/shape"
)

// Mode is a rule of compatibility, in the words of registries.
type Mode string

const (
	None               Mode = "NONE"
	Backward           Mode = "BACKWARD" // the new schema reads what the last one wrote
	BackwardTransitive Mode = "BACKWARD_TRANSITIVE"
	Forward            Mode = "FORWARD" // the last schema reads what the new one writes
	ForwardTransitive  Mode = "FORWARD_TRANSITIVE"
	Full               Mode = "FULL" // both
	FullTransitive     Mode = "FULL_TRANSITIVE"
)

// Modes lists all.
var Modes = []Mode{None, Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive}

// Parse reads a mode in any case.
func Parse(s string) (Mode, error) {
	for _, m := range Modes {
		if strings.EqualFold(s, string(m)) {
			return m, nil
		}
	}
	return "", fmt.Errorf("compatibility %q: use none, backward, forward or full, or one of the last three with _transitive", s)
}

// Error says why schemas do not go together; its text names the place in both.
type Error struct {
	Mode Mode
	// Version of the subject that the new schema does not go with.
	Version int
	Err     error
}

// Error names the mode and the version.
func (e *Error) Error() string {
	return fmt.Sprintf("not %s compatible with version %d: %v", strings.ToLower(string(e.Mode)), e.Version, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Valid reports whether text is a schema.
func Valid(f shape.Format, text string) error {
	switch f {
	case shape.Avro:
		return avroValid(text)
	case shape.Protobuf:
		_, err := protobufFile(text)
		return err
	case shape.JSONSchema:
		_, err := jsonSchema(text)
		return err
	}
	return fmt.Errorf("schemas of type %q are not known to this version: use AVRO, PROTOBUF or JSON", f)
}

// Reads returns nil when a reader with the schema reader can read all that was written with the schema writer.
func Reads(f shape.Format, reader, writer string) error {
	switch f {
	case shape.Avro:
		return avroReads(reader, writer)
	case shape.Protobuf:
		return protobufReads(reader, writer)
	case shape.JSONSchema:
		return jsonReads(reader, writer)
	}
	return Valid(f, reader)
}

// Check holds a new schema against the earlier versions of its subject, the oldest first. An *Error when it does not
// go with one of them.
func Check(mode Mode, f shape.Format, text string, earlier []string) error {
	if mode == None || len(earlier) == 0 {
		return nil
	}
	first := len(earlier) - 1
	base, transitive := strings.CutSuffix(string(mode), "_TRANSITIVE")
	if transitive {
		first = 0
	}
	for i := len(earlier) - 1; i >= first; i-- {
		if base != string(Forward) {
			if err := Reads(f, text, earlier[i]); err != nil {
				return &Error{mode, i + 1, err}
			}
		}
		if base != string(Backward) {
			if err := Reads(f, earlier[i], text); err != nil {
				return &Error{mode, i + 1, err}
			}
		}
	}
	return nil
}

// Same reports whether two texts are one schema, however they are written.
func Same(f shape.Format, a, b string) bool { return Find(f, a, []string{b}) == 0 }

// Find returns which of the texts is the first that is the same schema as text, however it is written; -1: none. It
// reads text once, and none of them when one is text to the letter.
func Find(f shape.Format, text string, among []string) int {
	if i := slices.Index(among, text); i >= 0 {
		return i
	}
	read := map[shape.Format]func(string) (any, error){
		shape.Avro:       func(t string) (any, error) { return avroCanonical(t) },
		shape.Protobuf:   func(t string) (any, error) { return SerializedProtobuf(t) },
		shape.JSONSchema: func(t string) (any, error) { return jsonSchema(t) },
	}[f]
	if read == nil {
		return -1
	}
	want, err := read(text)
	if err != nil {
		return -1
	}
	return slices.IndexFunc(among, func(other string) bool {
		have, err := read(other)
		return err == nil && reflect.DeepEqual(have, want)
	})
}
