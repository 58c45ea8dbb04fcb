package stdout

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/sinks/encode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSink(w io.Writer) *Sink {
	return New(Options{Writer: w, Source: "files", Encoder: encode.JSON(encode.Options{Source: "files", Separator: '\n', Form: pipetest.PGForm})})
}

func delivery() *pipeline.Delivery {
	t := pipetest.FilesTable("files")
	b := pipetest.Build(pipeline.Position{Counter: 1}, time.Unix(1_700_000_000, 0), []pipetest.Change{
		{Op: pipeline.OpInsert, Table: t, After: pipetest.Row{"1", "1", "/a"}}, {Op: pipeline.OpDelete, Table: t, Before: pipetest.Row{"1", pipetest.Absent, pipetest.Absent}}})
	return &pipeline.Delivery{Runs: []pipeline.Run{{Batch: b, To: 2}}, Events: 2}
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	s := newSink(&out)
	if o, err := s.Deliver(t.Context(), delivery()); o != nil || err != nil {
		t.Fatal(o, err)
	}
	if err := s.Resolve(t.Context(), 9, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(out.String(), "\n")
	if len(lines) != 4 || !strings.Contains(lines[1], `"type":"leat.delete"`) || !strings.Contains(lines[2], `"leat.resolved"`) || lines[3] != "" {
		t.Fatal(lines)
	}
}

// A reader that does not read holds Deliver until the context ends, and no longer; nothing is torn by it.
func TestReaderThatHangs(t *testing.T) {
	r, w := io.Pipe()
	s := newSink(w)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := s.Deliver(ctx, delivery()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
	got := make(chan string)
	go func() {
		all, _ := io.ReadAll(r)
		got <- string(all)
	}()
	if _, err := s.Deliver(t.Context(), delivery()); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if n := strings.Count(<-got, "\n"); n != 4 {
		t.Fatalf("%d lines, want 4", n)
	}
}

func TestBrokenPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	_, err = newSink(w).Deliver(t.Context(), delivery())
	if e := pipeline.AsDeliveryError(err); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "standard output") {
		t.Fatal(err)
	}
}
