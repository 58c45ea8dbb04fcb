package disklog

import (
	"errors"
	"slices"

	"github.com/leat-cdc/leat/schemas"
)

// Table returns a version of the table that events of that version call subject; nil when the log never had it; also
// when the segments that described it are gone. Of tables that took one another's name the latest counts. It reads a block for each version
// that nobody has asked for yet. Safe for concurrent use.
func (l *Log) Table(subject string, version uint32) (*schemas.Table, error) {
	var failed error
	for _, at := range l.described(subject, version) {
		t := l.tables.get(at.id, version)
		if t == nil {
			var err error
			if t, err = l.describedAt(at.seq, at.off); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
		}
		if t != nil && t.Version == version && t.Subject() == subject {
			return t, nil
		}
	}
	kept, err := l.outlived()
	for i := len(kept) - 1; i >= 0; i-- {
		if t := kept[i]; t.Version == version && t.Subject() == subject {
			return t, nil
		}
	}
	return nil, errors.Join(failed, err)
}

// description is where a version of a table is described.
type description struct {
	id  uint32
	seq uint64
	off int64
}

// described lists one place for each table that has the version: first those that are called subject now, then the
// latest.
func (l *Log) described(subject string, version uint32) []description {
	l.mu.Lock()
	defer l.mu.Unlock()
	places, named := map[uint32]description{}, map[uint32]bool{}
	for _, k := range l.mu.tables {
		named[k.table.ID] = k.table.Subject() == subject
	}
	for _, s := range l.mu.segs {
		if s.index == nil {
			continue
		}
		for k, off := range s.index.at {
			if k.version == version {
				places[k.id] = description{k.id, s.seq, int64(off)}
			}
		}
	}
	all := make([]description, 0, len(places))
	for _, p := range places {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b description) int {
		switch {
		case named[a.id] != named[b.id] && named[a.id]:
			return -1
		case named[a.id] != named[b.id]:
			return 1
		}
		return int(int64(b.id) - int64(a.id))
	})
	return all
}

// describedAt reads the description in a segment; nil when retention has taken that meanwhile.
func (l *Log) describedAt(seq uint64, off int64) (*schemas.Table, error) {
	var s *segment
	var in stream
	l.mu.Lock()
	gone := l.mu.closed || len(l.mu.segs) == 0 || seq < l.mu.segs[0].seq
	var err error
	if !gone {
		err = l.acquire(seq, 0, &s, &in)
	}
	l.mu.Unlock()
	if gone || err != nil {
		return nil, err
	}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.letGo(s, &in)
	}()
	t, err := schemaBlock(&in, off, 1<<32-1)
	if err != nil {
		return nil, err
	}
	return l.tables.intern(t), nil
}
