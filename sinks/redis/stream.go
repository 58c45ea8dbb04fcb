package redis

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// id of an entry, as Redis has it: hi-lo.
type id struct{ hi, lo uint64 }

func (i id) String() string { return string(i.append(nil)) }

func (i id) append(dst []byte) []byte {
	return strconv.AppendUint(append(strconv.AppendUint(dst, i.hi, 10), '-'), i.lo, 10)
}

func (i id) below(o id) bool { return i.hi < o.hi || i.hi == o.hi && i.lo < o.lo }

func parseID(s string) (i id, err error) {
	hi, lo, _ := strings.Cut(s, "-")
	if i.hi, err = strconv.ParseUint(hi, 10, 64); err == nil {
		i.lo, err = strconv.ParseUint(lo, 10, 64)
	}
	if err != nil {
		return i, fmt.Errorf("the entry id %q is not known to this version", s)
	}
	return i, nil
}

// stream is what the pump knows of one stream.
type stream struct {
	name string
	// top is the highest id that was given out or seen.
	top id
	// Of what stands up to sure, all is known; beyond it there may be entries of commands without an answer.
	sure id
	// read: what stands beyond sure was looked at.
	read bool
	// known are the events that were found there, by offset, with where they stand.
	known map[uint64]id
	most  uint64 // the highest of them
	// last is the latest event of a key, of keys that may have such events: the next has to stand behind it.
	last map[uint64]placed
}

// placed is an event that stands in the stream.
type placed struct {
	offset uint64
	at     id
}

// next gives an event its id.
func (st *stream) next(offset uint64) id {
	if offset > st.top.hi {
		st.top = id{offset, 0}
	} else {
		st.top.lo++
	}
	return st.top
}

// place returns where the event is to go; there: it need not, since it stands behind what went before of its key.
func (st *stream) place(e *entry) (at id, there bool) {
	if at, there = st.known[e.offset]; there {
		last := st.last[e.hash]
		there = last.offset >= e.offset || last.at.below(at) // from a higher one on, the key is gone through again
	}
	if !there {
		at = st.next(e.offset)
	}
	if e.offset <= st.most {
		st.last[e.hash] = placed{e.offset, at}
	}
	return at, there
}

// doubt has the stream looked at before the next command: not all of what was sent is known to be there, or not.
func (st *stream) doubt() { st.read = false }

// window is how many entries are read at once; farthest how many where nothing is known to have been delivered ever.
const window, farthest = 1000, 1 << 20

// look reads the entries beyond sure, the newest first.
func (s *Sink) look(ctx context.Context, st *stream) error {
	top, err := lastID(s.client.Do(ctx, "XINFO", "STREAM", st.name))
	if err != nil {
		return fmt.Errorf("look at stream %s: %w", st.name, err)
	}
	if top.below(st.top) {
		if err := s.fence(ctx, st); err != nil {
			return err
		}
	} else {
		st.top = top
	}
	end, least := "+", "("+st.sure.String()
	for n := 0; st.sure.below(st.top) && (n < farthest || !s.began.Worked.IsZero()); {
		found, err := s.client.XRevRangeN(ctx, st.name, end, least, window).Result()
		if err != nil {
			return fmt.Errorf("read the end of stream %s: %w", st.name, err)
		}
		for i := range found {
			o, ours := s.offset(&found[i])
			if !ours {
				continue
			}
			at, err := parseID(found[i].ID)
			if err != nil {
				return err
			}
			if st.known[o].below(at) {
				st.known[o], st.most = at, max(st.most, o)
			}
		}
		if len(found) < window {
			break
		}
		n += len(found)
		end = "(" + found[len(found)-1].ID
	}
	st.sure, st.read = st.top, true
	return nil
}

// fence has the stream refuse ids that were given out: a command of which the connection broke may run yet. Who may not
// do that, or has no such command, goes on without: only a server that stood still meanwhile runs one so late.
func (s *Sink) fence(ctx context.Context, st *stream) error {
	err := s.client.Do(ctx, "XSETID", st.name, st.top.String()).Err()
	if answer := redis.Error(nil); err != nil && !errors.As(err, &answer) {
		return fmt.Errorf("look at stream %s: %w", st.name, err)
	}
	return nil
}

// offset is that of the event that the entry holds, unless it is another's or a copy.
func (s *Sink) offset(m *redis.XMessage) (offset uint64, ours bool) {
	text, _ := m.Values[fieldID].(string)
	digits, ours := strings.CutPrefix(text, s.prefix)
	if _, copied := m.Values[fieldReplay]; !ours || copied {
		return 0, false
	}
	offset, err := strconv.ParseUint(digits, 10, 64)
	return offset, err == nil
}

// lastID reads last-generated-id of XINFO STREAM; zero when there is no stream.
func lastID(c *redis.Cmd) (id, error) {
	fields, err := c.Slice()
	if err != nil {
		if redis.HasErrorPrefix(err, "no such key") {
			return id{}, nil
		}
		return id{}, err
	}
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "last-generated-id" {
			text, _ := fields[i+1].(string)
			return parseID(text)
		}
	}
	return id{}, fmt.Errorf("XINFO STREAM gives no last-generated-id")
}

// begin is the stream as a session finds it.
func (s *Sink) begin(name string) *stream {
	st := &stream{name: name, known: map[uint64]id{}, last: map[uint64]placed{}}
	if low := uint64(s.began.Low); low > 0 {
		st.sure = id{low - 1, math.MaxUint64}
	}
	return st
}

func appendUint(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }
