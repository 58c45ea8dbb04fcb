package snapshot

import (
	"context"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// Config says how tables are read. The zero value is the default pace.
type Config struct {
	// Name of the source, in errors.
	Name string
	// Chunk is how long the reading of one chunk shall take; default 100 ms.
	Chunk time.Duration
	// Workers is how many connections read at a time; default 1, with Max 2.
	Workers int
	// Max: read without pauses, in chunks of up to 50,000 rows, many of them on their way.
	Max bool

	first, batch int // rows of the first chunk, bytes of a batch: smaller in tests
}

// gentle is the share of the time that chunks take of each worker at the default pace.
const gentle = 0.3

// New returns src with streams that are pipeline.Snapshotters over db. What src can do beside is kept only as far as
// the engine asks for it (pipeline.Prober).
func New(src pipeline.Source, db Database, c Config) pipeline.Source {
	if c.Chunk <= 0 {
		c.Chunk = 100 * time.Millisecond
	}
	if c.Workers <= 0 {
		c.Workers = 1
		if c.Max {
			c.Workers = 2
		}
	}
	setDefault(&c.first, firstChunk)
	setDefault(&c.batch, batchBytes)
	s := &source{Source: src, db: db, cfg: c}
	if p, ok := src.(pipeline.Prober); ok {
		return &probed{s, p}
	}
	return s
}

func setDefault(v *int, to int) {
	if *v == 0 {
		*v = to
	}
}

type source struct {
	pipeline.Source
	db  Database
	cfg Config

	mu       sync.Mutex
	prepared map[string]*unfinished // transactions that outlive a stream
}

type probed struct {
	*source
	pipeline.Prober
}

// Open opens the source's stream.
func (s *source) Open(ctx context.Context, after pipeline.Position) (pipeline.Stream, error) {
	inner, err := s.Source.Open(ctx, after)
	if err != nil {
		return nil, err
	}
	st := newStream(inner, s.db, s.cfg)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prepared != nil {
		st.opens, s.prepared = s.prepared, nil
	}
	st.home = s
	return st, nil
}

// keep takes what outlives a stream that was closed.
func (s *source) keep(prepared map[string]*unfinished) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prepared == nil {
		s.prepared = prepared
	}
}
