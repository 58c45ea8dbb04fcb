package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/sinks/encode"
)

func encoder() *encode.Encoder {
	return encode.JSON(encode.Options{Source: "files", PublicURL: "http://leat", Separator: '\n', Form: pipetest.PGForm})
}

func delivery(base, n int) *pipeline.Delivery {
	t := pipetest.FilesTable("files")
	var tx []pipetest.Change
	for i := range n {
		tx = append(tx, pipetest.Change{Op: pipeline.OpInsert, Table: t, After: pipetest.Row{fmt.Sprint(base + i), "1", fmt.Sprintf("/%d", base+i)}})
	}
	b := pipetest.Build(pipeline.Position{Counter: 1}, time.Unix(1_700_000_000, 0), tx)
	b.Base = pipeline.Offset(base)
	return &pipeline.Delivery{Runs: []pipeline.Run{{Batch: b, To: uint32(n)}}, Events: n}
}

func deliver(t *testing.T, s *Sink, base, n int) {
	t.Helper()
	if out, err := s.Deliver(t.Context(), delivery(base, n)); out != nil || err != nil {
		t.Fatal(out, err)
	}
}

// offsets reads the sequence of every line of the files; a line that is no JSON fails the test.
func offsets(t *testing.T, paths ...string) (out []string) {
	t.Helper()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range bytes.SplitAfter(text, []byte{'\n'}) {
			if len(line) == 0 {
				continue
			}
			var e struct{ ID string }
			if err := json.Unmarshal(line, &e); err != nil || line[len(line)-1] != '\n' {
				t.Fatalf("line %q: %v", line, err)
			}
			out = append(out, strings.TrimPrefix(e.ID, "files-"))
		}
	}
	return out
}

func same(t *testing.T, got []string, from, n int) {
	t.Helper()
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(from+i))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("offsets %v, want %v", got, want)
	}
}

func TestLinesAndTornTail(t *testing.T) {
	for name, tail := range map[string]string{"none": "", "half a line": `{"specversion":"1.0","id":"files-9`, "one byte": "{", "zeros": "\x00\x00\x00", "line and zeros": `{"specversion":"1.0","x` + "\x00\x00",
		"long": `{"specversion":"1.0","x":"` + strings.Repeat("y", 200_000)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "made", "audit.jsonl")
			s := New(Options{Path: path, Source: "files", Encoder: encoder()})
			deliver(t, s, 100, 3)
			deliver(t, s, 103, 1)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Deliver(t.Context(), delivery(1, 1)); !errors.Is(err, pipeline.ErrClosed) {
				t.Fatal(err)
			}
			f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			f.WriteString(tail)
			f.Close()
			s = New(Options{Path: path, Source: "files", Encoder: encoder()})
			defer s.Close()
			deliver(t, s, 104, 2)
			same(t, offsets(t, path), 100, 6)
		})
	}
}

// A file that is none of ours is left alone.
func TestForeignFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notes.txt")
	os.WriteFile(path, []byte("my only notes"), 0o600)
	s := New(Options{Path: path, Source: "files", Encoder: encoder()})
	_, err := s.Deliver(t.Context(), delivery(1, 1))
	if e := pipeline.AsDeliveryError(err); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "move the file away") {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); string(text) != "my only notes" {
		t.Fatalf("the file is now %q", text)
	}
	s = New(Options{Path: t.TempDir(), Source: "files", Encoder: encoder()})
	if _, err := s.Deliver(t.Context(), delivery(1, 1)); pipeline.AsDeliveryError(err).Class != pipeline.Unavailable {
		t.Fatal(err)
	}
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := New(Options{Path: path, Rotate: 2500, Keep: 2, Source: "files", Encoder: encoder()})
	defer s.Close()
	for i := range 12 {
		deliver(t, s, 100+3*i, 3) // 3 lines of about 500 bytes: two Deliveries do not fit
	}
	old, err := Rotated(path)
	if err != nil || len(old) != 2 {
		t.Fatal(old, err)
	}
	same(t, offsets(t, append(old, path)...), 127, 9)
	// Somebody else's rotation is noticed.
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, 136, 1)
	same(t, offsets(t, path), 136, 1)
	if err := s.Resolve(t.Context(), 137, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	if got := offsets(t, path); len(got) != 2 || got[1] != "resolved-137" {
		t.Fatal(got)
	}
}

// faulty fails as a disk may.
type faulty struct {
	*os.File
	room int // bytes until the disk is full
	sync error
}

func (f *faulty) Write(p []byte) (int, error) {
	if len(p) <= f.room {
		f.room -= len(p)
		return f.File.Write(p)
	}
	n, _ := f.File.Write(p[:f.room])
	f.room = 0
	return n, &fs.PathError{Op: "write", Path: "audit", Err: syscall.ENOSPC}
}

func (f *faulty) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.File.Sync()
}

func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := New(Options{Path: path, Source: "files", Encoder: encoder()})
	defer s.Close()
	open := s.open
	var disk *faulty
	s.open = func(path string) (handle, error) {
		f, err := open(path)
		if err != nil {
			return nil, err
		}
		disk = &faulty{File: f.(*os.File), room: 1 << 20}
		return disk, nil
	}
	deliver(t, s, 100, 2)
	disk.room = 700
	_, err := s.Deliver(t.Context(), delivery(102, 2))
	if e := pipeline.AsDeliveryError(err); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, "is full") {
		t.Fatal(err)
	}
	same(t, offsets(t, path), 100, 2)
	deliver(t, s, 102, 2)
	same(t, offsets(t, path), 100, 4)
	disk.sync = errors.New("input/output error")
	if _, err := s.Deliver(t.Context(), delivery(104, 1)); pipeline.AsDeliveryError(err).Class != pipeline.Unavailable {
		t.Fatal(err)
	}
	first := disk
	deliver(t, s, 104, 1)
	if disk == first {
		t.Fatal("a file whose sync failed was trusted again")
	}
}

func TestUndecodableEventIsFatal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := New(Options{Path: path, Source: "files", Encoder: encoder()})
	defer s.Close()
	d := delivery(100, 3)
	b := d.Runs[0].Batch
	image := b.Bytes(b.Events[1].After)
	image[len(image)-1] = 0xff
	out, err := s.Deliver(t.Context(), d)
	if err != nil || out[0].Class != pipeline.OK || out[1].Class != pipeline.Fatal || out[2].Class != pipeline.OK {
		t.Fatal(out, err)
	}
	if got := offsets(t, path); fmt.Sprint(got) != "[100 102]" {
		t.Fatal(got)
	}
}
