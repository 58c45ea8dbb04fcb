package record

import (
	"bytes"
	"encoding/json"

	"github.com/leat-cdc/leat/pipeline"
)

// appendRanges is AppendHead for a batch of changes of ranges: its payload is JSON, []pipeline.RangeChange.
func appendRanges(dst []byte, b *pipeline.Batch) (head []byte, crc uint32, payload int, newest int64, err error) {
	if b.Kind != pipeline.BatchRows || len(b.Events)+len(b.Txs)+len(b.Notices)+len(b.Arena)+len(b.Tables) > 0 || !b.End.Zero() {
		return dst, 0, 0, 0, invalid("a batch with changes of ranges holds something else too")
	}
	for i := range b.Ranges {
		if err := checkNew(&b.Ranges[i]); err != nil {
			return dst, 0, 0, 0, err
		}
	}
	j, err := json.Marshal(b.Ranges)
	if err != nil {
		return dst, 0, 0, 0, invalid("ranges: %v", err)
	}
	dst = append(grow(dst, HeaderSize), j...)
	return dst, CRC(0, j), len(j), 0, nil
}

func decodeRanges(p []byte, h *Header, into *pipeline.Batch) error {
	into.Kind, into.Base = pipeline.BatchRows, h.Base
	if err := json.Unmarshal(p, &into.Ranges); err != nil {
		return invalid("ranges: %v", err)
	}
	if len(into.Ranges) == 0 || h.Events != 0 {
		return invalid("a ranges block with %d changes and %d events", len(into.Ranges), h.Events)
	}
	for i := range into.Ranges {
		if err := checkNew(&into.Ranges[i]); err != nil {
			return err
		}
		for o := range into.Ranges[i].Opened { // empty as none: what is written again says the same
			r := &into.Ranges[i].Opened[o]
			if len(r.Start) == 0 {
				r.Start = nil
			}
			if len(r.Parents) == 0 {
				r.Parents = nil
			}
		}
	}
	return nil
}

func checkNew(c *pipeline.RangeChange) error {
	if len(c.Closed) == 0 {
		return invalid("a change of ranges that closes none")
	}
	return checkChange(c)
}

// checkChange checks what a change says by itself; whether it fits the map is package partition's.
func checkChange(c *pipeline.RangeChange) error {
	if c.Epoch == 0 || len(c.Opened) == 0 {
		return invalid("a change of ranges of %q without epoch or ranges", c.Space)
	}
	for i, r := range c.Opened {
		last := i == len(c.Opened)-1
		switch {
		case r.Space != c.Space || r.ID == pipeline.WholeRange:
			return invalid("a change of ranges of %q opens range %d of %q", c.Space, r.ID, r.Space)
		case r.End != nil && bytes.Compare(r.Start, r.End) >= 0, !last && !bytes.Equal(r.End, c.Opened[i+1].Start), !last && r.End == nil:
			return invalid("a change of ranges of %q leaves a gap or an overlap at range %d", c.Space, r.ID)
		}
	}
	return nil
}
