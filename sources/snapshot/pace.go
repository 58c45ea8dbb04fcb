package snapshot

import "time"

// Sizes of chunks, in rows.
const (
	firstChunk   = 1_000
	leastChunk   = 50
	mostChunk    = 10_000
	mostChunkMax = 50_000
	// cleanChunks in a row let the next be a tenth larger.
	cleanChunks = 10
)

// firstBytes of rows are in the first chunk, as the catalogue guesses their width; firstBlind rows when it does not.
const (
	firstBytes = 1 << 20
	firstBlind = 100
)

// chunkBytes is where a chunk ends that has not its rows yet: what waits for its place in the stream is memory.
const chunkBytes = 16 << 20

// sizer finds how many rows can be read in the target time: halved on a breach, a tenth more after ten clean chunks;
// at first, while chunks take less than half of the target, doubled.
type sizer struct {
	target time.Duration
	most   int
	limit  int
	least  int
	clean  int
	slow   bool // there was a breach
}

// newSizer is of a table whose rows are about so wide; 0 = not known.
func newSizer(c *Config, width uint64) sizer {
	s := sizer{target: c.Chunk, most: mostChunk, limit: min(c.first, firstBlind)}
	if width > 0 {
		s.limit = max(1, int(min(uint64(c.first), firstBytes/width)))
	}
	s.least = min(leastChunk, s.limit)
	if c.Max {
		s.most = mostChunkMax
	}
	return s
}

// took says that a chunk of n rows took d; cut, that it ended by its bytes.
func (s *sizer) took(n int, d time.Duration, cut bool) {
	switch {
	case cut:
		s.limit, s.clean, s.slow = max(n, 1), 0, true
	case d > s.target:
		s.limit, s.clean, s.slow = max(s.limit/2, s.least), 0, true
	case n < s.limit:
	case !s.slow && d < s.target/2:
		s.limit = min(2*s.limit, s.most)
	default:
		if s.clean++; s.clean >= cleanChunks {
			s.limit, s.clean = min(s.limit+max(s.limit/10, 1), s.most), 0
		}
	}
}

// smaller is after a chunk in whose window too much changed.
func (s *sizer) smaller() { s.limit, s.clean, s.slow = max(s.limit/2, s.least), 0, true }

// rest is how long to do nothing after a chunk that took d, to take only this share of the time.
func rest(d time.Duration, ratio float64) time.Duration {
	if ratio >= 1 || ratio <= 0 {
		return 0
	}
	return time.Duration(float64(d) * (1/ratio - 1))
}
