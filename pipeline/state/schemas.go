package state

import (
	"context"
	"fmt"
	"time"
)

// SchemaVersion is one version of a subject of the schema registry.
type SchemaVersion struct {
	Subject      string
	Version      int
	ID           uint32
	Format, Text string
}

// PutSchemaVersion keeps one more. Versions are never changed.
func (s *Store) PutSchemaVersion(ctx context.Context, v SchemaVersion) error {
	return s.exec(ctx, "keep the schema", "INSERT INTO schema_versions (subject, version, id, format, text, created) VALUES (?, ?, ?, ?, ?, ?)",
		v.Subject, v.Version, v.ID, v.Format, v.Text, micros(time.Now()))
}

// SchemaVersions lists all, those of a subject in their order.
func (s *Store) SchemaVersions(ctx context.Context) ([]SchemaVersion, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT subject, version, id, format, text FROM schema_versions ORDER BY subject, version")
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	defer rows.Close()
	var all []SchemaVersion
	for rows.Next() {
		var v SchemaVersion
		if err := rows.Scan(&v.Subject, &v.Version, &v.ID, &v.Format, &v.Text); err != nil {
			return nil, fmt.Errorf("list schemas: %w", err)
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
