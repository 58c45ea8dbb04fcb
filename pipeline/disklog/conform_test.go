package disklog

import (
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

func TestTheDiskLogConforms(t *testing.T) {
	pipetest.TestLog(t, func(t *testing.T) pipeline.Log {
		l, err := Open(Options{Dir: t.TempDir(), Source: "files", SegmentSize: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}
