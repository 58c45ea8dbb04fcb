package webhook

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
)

func TestTheWebhookConforms(t *testing.T) {
	pipetest.TestSink(t, func(t *testing.T) pipetest.SinkRig {
		var mu sync.Mutex
		var got []pipeline.Offset
		hang := make(chan struct{})
		hung := false
		end := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			select {
			case <-hang:
				<-end
			default:
			}
			var events []struct{ Sequence string }
			if json.Unmarshal(body, &events) != nil {
				events = make([]struct{ Sequence string }, 1)
				if err := json.Unmarshal(body, &events[0]); err != nil {
					t.Errorf("body: %v", err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range events {
				o, _ := strconv.ParseUint(e.Sequence, 10, 64)
				got = append(got, pipeline.Offset(o))
			}
		}))
		t.Cleanup(func() { close(end); srv.Close() })
		return pipetest.SinkRig{Sink: newSink(t, srv.URL, nil),
			Received: func() []pipeline.Offset { mu.Lock(); defer mu.Unlock(); return append([]pipeline.Offset(nil), got...) },
			Hang: func() {
				if !hung {
					hung = true
					close(hang)
				}
			}}
	})
}
