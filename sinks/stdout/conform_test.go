package stdout

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"sync"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

// collector keeps what is written and may stop taking it.
type collector struct {
	mu   sync.Mutex
	text bytes.Buffer
	stop chan struct{} // nil: it takes everything
}

func (c *collector) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop != nil {
		<-c.stop
	}
	return c.text.Write(p)
}

func TestStdoutConforms(t *testing.T) {
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		c := &collector{}
		t.Cleanup(func() {
			if c.stop != nil {
				close(c.stop)
			}
		})
		return pipetest.SinkRig{Sink: newSink(c), Hang: func() { c.stop = make(chan struct{}) }, Received: func() (got []pipeline.Offset) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for d := json.NewDecoder(bytes.NewReader(c.text.Bytes())); ; {
				var e struct{ Sequence string }
				if err := d.Decode(&e); err == io.EOF {
					return got
				} else if err != nil {
					t.Fatal(err)
				}
				o, _ := strconv.ParseUint(e.Sequence, 10, 64)
				got = append(got, pipeline.Offset(o))
			}
		}}
	})
}
