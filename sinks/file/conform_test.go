package file

import (
	"path/filepath"
	"strconv"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

func TestTheFileConforms(t *testing.T) {
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		return pipetest.SinkRig{Sink: New(Options{Path: path, Source: "files", Encoder: encoder()}), Received: func() (got []pipeline.Offset) {
			if m, _ := filepath.Glob(path); len(m) == 0 {
				return nil
			}
			for _, text := range offsets(t, path) {
				o, _ := strconv.ParseUint(text, 10, 64)
				got = append(got, pipeline.Offset(o))
			}
			return got
		}}
	})
}
