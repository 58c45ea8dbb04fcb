package cli_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/pipetest"
	"github.com/leat-cdc/leat/pipeline/record"
)

// makelogCmd makes the log of a source in a folder: makelog FOLDER SOURCE.
func makelogCmd(ts *testscript.TestScript, _ bool, args []string) {
	t := ts.Value("t").(testing.TB)
	l, err := disklog.Open(disklog.Options{Dir: ts.MkAbs(args[0]), Source: args[1], Now: func() time.Time { return now.Add(-time.Hour) }})
	ts.Check(err)
	files := pipetest.FilesTable("files")
	var ticket uint64
	for i := range 3 {
		b := pipetest.Build(pipeline.Position{Counter: uint64(i + 1), Token: fmt.Sprintf("0/%d", i+1)}, now.Add(time.Duration(i-10)*time.Second), []pipetest.Change{
			{Op: pipeline.OpInsert, Table: files, After: pipetest.Row{fmt.Sprint(i), "77", fmt.Sprintf("/%d", i)}},
		})
		ticket, err = l.Append(t.Context(), b)
		ts.Check(err)
	}
	_, err = l.Synced(t.Context(), ticket-1)
	ts.Check(err)
	ts.Check(l.Close())
}

// flipCmd changes a byte of the first rows in a log: flip FOLDER.
func flipCmd(ts *testscript.TestScript, _ bool, args []string) {
	name, place := "", int64(0)
	ts.Check(disklog.Dump(context.Background(), ts.MkAbs(args[0]), 0, 0, func(e disklog.Entry) error {
		if e.Kind == record.KindRows && name == "" {
			name, place = e.File, e.Offset+record.HeaderSize
		}
		return nil
	}))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	p := make([]byte, 1)
	_, err = f.ReadAt(p, place)
	ts.Check(err)
	p[0] ^= 0xff
	_, err = f.WriteAt(p, place)
	ts.Check(err)
}
