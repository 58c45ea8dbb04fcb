package disklog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/google/uuid"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas"
)

// Summary is what a log's folder holds.
type Summary struct {
	ID, Source string
	Created    time.Time
	Format     int
	// Oldest is the first offset kept, Next the one that the next event would get.
	Oldest, Next pipeline.Offset
	// Last is the End of the last batch that had one; Ticket the last one given out.
	Last     pipeline.Position
	Ticket   uint64
	Segments []SegmentSummary
	Tables   []*schemas.Table
	Notices  []pipeline.Notice
	// Blocks that were read and found good; of Verify only.
	Blocks int
	// Torn is how many bytes behind the last good block are not zero and not proven: they are cut when the log is opened.
	Torn int64
}

// SegmentSummary is one segment file.
type SegmentSummary struct {
	File   string
	Number uint64
	// Size of the file, Used by blocks.
	Size, Used int64
	// First and Next offset.
	First, Next pipeline.Offset
	// Oldest and Newest commit time; zero when it has no events.
	Oldest, Newest time.Time
	Created        time.Time
	Sealed         bool
	// Tables in it, with the offsets between which their events lie.
	Tables []record.IndexTable
}

// Info reads what Open reads, changes nothing and needs no lock: the log may be open in another process.
func Info(dir string) (Summary, error) { return info(diskfs.OS{}, dir) }

func info(fsys diskfs.FS, dir string) (sum Summary, err error) {
	m, id, err := identify(fsys, dir)
	if err != nil {
		return sum, err
	}
	fd, err := recoverLog(fsys, dir, id, newRegistry(), os.O_RDONLY)
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, fd.close()) }()
	sum = m.summary()
	sum.Oldest, sum.Next = m.First, max(m.First, m.AtLeast)
	if len(fd.segs) > 0 {
		sum.Oldest, sum.Next = fd.segs[0].base(), max(fd.st.next, m.AtLeast)
	}
	sum.Last, sum.Ticket, sum.Notices = fd.st.last, fd.st.ticket, fd.st.notices
	for _, k := range fd.st.tables {
		sum.Tables = append(sum.Tables, k.table)
	}
	for _, s := range fd.segs {
		sum.Segments = append(sum.Segments, s.summary())
	}
	return sum, nil
}

func identify(fsys diskfs.FS, dir string) (meta, uuid.UUID, error) {
	m, err := readMeta(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return m, uuid.Nil, fmt.Errorf("%s holds no log (no file %q)", dir, metaName)
	}
	if err != nil {
		return m, uuid.Nil, err
	}
	id, err := uuid.Parse(m.ID)
	if err != nil {
		return m, id, fmt.Errorf("log in %s: id: %w", dir, err)
	}
	return m, id, nil
}

func (m *meta) summary() Summary {
	return Summary{ID: m.ID, Source: m.Source, Created: m.Created, Format: m.Format}
}

func (s *segment) summary() SegmentSummary {
	sum := SegmentSummary{File: s.name, Number: s.seq, Size: s.size, Used: s.end, First: s.head.Base, Next: s.head.Base,
		Created: time.UnixMicro(s.head.Created).UTC(), Sealed: s.sealed}
	if x := s.index; x != nil {
		sum.Next, sum.Tables = x.Next, x.Tables
		if x.timed {
			sum.Oldest, sum.Newest = time.UnixMicro(x.Oldest).UTC(), time.UnixMicro(x.Newest).UTC()
		}
	}
	return sum
}

// close closes the files that recovery left open.
func (fd *found) close() (err error) {
	for _, s := range fd.segs {
		if s.file != nil {
			err = errors.Join(err, s.file.Close())
			s.file = nil
		}
	}
	return err
}
