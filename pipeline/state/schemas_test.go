package state

import (
	"path/filepath"
	"slices"
	"testing"
)

func TestSchemaVersions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	all := []SchemaVersion{{"a", 1, 2, "AVRO", "x"}, {"a", 2, 1, "AVRO", "y"}, {"b", 1, 1, "PROTOBUF", "y"}}
	for _, v := range []SchemaVersion{all[1], all[2], all[0]} {
		if err := s.PutSchemaVersion(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutSchemaVersion(t.Context(), all[0]); err == nil {
		t.Error("a version was changed")
	}
	s.Close()
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.SchemaVersions(t.Context()); !slices.Equal(got, all) || err != nil {
		t.Error(got, err)
	}
}
