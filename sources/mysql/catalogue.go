package mysql

import "github.com/leat-cdc/leat/schemas/cell/binlog"

type lookups struct{}

func newLookups(s *Source, v *server) *lookups { return &lookups{} }
func (l *lookups) close()                      {}

func (r *reader) declare(m *binlog.TableMap) (looked, ok bool, err error) { return false, true, nil }
