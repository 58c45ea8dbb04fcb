package compat

import (
	"fmt"

	"github.com/twmb/avro"
)

func avroValid(text string) error {
	if _, err := avro.Parse(text); err != nil {
		return fmt.Errorf("not an Avro schema: %w", err)
	}
	return nil
}

// avroReads goes by schema resolution; the names of records have to match.
// https://avro.apache.org/docs/1.12.0/specification/#schema-resolution
func avroReads(reader, writer string) error {
	r, err := avro.Parse(reader)
	if err != nil {
		return fmt.Errorf("not an Avro schema: %w", err)
	}
	w, err := avro.Parse(writer)
	if err != nil {
		return fmt.Errorf("not an Avro schema: %w", err)
	}
	return avro.CheckCompatibility(w, r)
}

// avroCanonical is the same for texts that are one schema.
func avroCanonical(text string) (string, error) {
	s, err := avro.Parse(text)
	if err != nil {
		return "", fmt.Errorf("not an Avro schema: %w", err)
	}
	return string(s.Canonical()), nil
}
