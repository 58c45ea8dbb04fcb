package compat

import (
	"bytes"
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

func avroSame(a, b string) bool {
	x, err := avro.Parse(a)
	y, err2 := avro.Parse(b)
	return err == nil && err2 == nil && bytes.Equal(x.Canonical(), y.Canonical())
}
