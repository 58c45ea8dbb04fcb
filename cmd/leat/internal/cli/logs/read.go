package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/events"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
	"github.com/leat-cdc/leat/pipeline/record"
	"github.com/leat-cdc/leat/schemas/cell/form"
	"github.com/leat-cdc/leat/sinks/encode"
)

// verifyDoc is one log in the document of log verify --json.
type verifyDoc struct {
	Source string      `json:"source"`
	Whole  bool        `json:"whole"`
	Blocks int         `json:"blocks"`
	Oldest uint64      `json:"oldest"`
	Next   uint64      `json:"next"`
	Torn   int64       `json:"torn_bytes"`
	Damage []damageDoc `json:"damage"`
}

type damageDoc struct {
	File   string `json:"file"`
	Offset int64  `json:"byte"`
	Until  int64  `json:"until_byte,omitempty"`
	What   string `json:"what"`
}

func (a *commands) logVerify(ctx context.Context, args []string, dir string) error {
	folders, err := a.logFolders(args, dir)
	if err != nil {
		return err
	}
	docs, whole := []verifyDoc{}, true
	for _, f := range folders {
		a.Err.Printf("reading %s\n", f.dir)
		damage, s, err := disklog.Verify(ctx, f.dir)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		d := verifyDoc{Source: s.Source, Whole: len(damage) == 0, Blocks: s.Blocks, Oldest: uint64(s.Oldest), Next: uint64(s.Next), Torn: s.Torn, Damage: []damageDoc{}}
		for _, x := range damage {
			d.Damage = append(d.Damage, damageDoc{filepath.Base(x.File), x.Offset, x.Until, x.What})
		}
		docs, whole = append(docs, d), whole && d.Whole
	}
	if a.JSON {
		err = a.Document(map[string]any{"logs": docs})
	} else {
		a.printVerified(docs)
	}
	if err == nil && !whole {
		err = fault.Said(fault.Failed)
	}
	return err
}

func (a *commands) printVerified(docs []verifyDoc) {
	for _, d := range docs {
		word := a.Out.Paint(screen.Green, "whole")
		if !d.Whole {
			word = a.Out.Paint(screen.Red, screen.Plural(len(d.Damage), "damaged place"))
		}
		a.Out.Printf("log of %s: %s; %s, offsets %s\n", screen.Clean(d.Source), word, screen.Plural(d.Blocks, "block"), screen.Offsets(d.Oldest, d.Next))
		for _, x := range d.Damage {
			until := ""
			if x.Until > 0 {
				until = fmt.Sprintf(" to %d", x.Until)
			}
			a.Out.Printf("  %s, byte %d%s: %s\n", screen.Clean(x.File), x.Offset, until, screen.Clean(x.What))
		}
		if len(d.Damage) > 0 {
			a.Out.Printf("  → %s\n", a.Out.Paint(screen.Dim, "stop leat run, restore the data folder from a backup (docs/operations.md); nothing is skipped silently"))
		}
		if d.Torn > 0 {
			a.Out.Printf("  %s at the end were being written and count for nothing: the next start cuts them\n", screen.Plural(int(d.Torn), "byte"))
		}
	}
}

// dumping is one leat log dump.
type dumping struct {
	from, to      uint64
	jsonl, events bool
}

func (a *commands) logDumpCommand(dir *string) *cobra.Command {
	var o dumping
	cmd := &cobra.Command{
		Use:   "dump [SOURCE]",
		Short: "The records of the log",
		Long: "One line per block of the log: where it lies, its kind, the offsets, tables and transactions in it. With\n" +
			"--events also the events as CloudEvents JSON, without a server. A transaction that was too large for one\n" +
			"block lies in chunks; its events get their offsets from the commit block behind them.",
		Example: "  leat log dump files --from 1877212358656123 --to 1877212358656200\n  leat log dump files --events --jsonl",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.logDump(cmd, args, *dir, o) },
	}
	f := cmd.Flags()
	f.Uint64Var(&o.from, "from", 0, "begin at `OFFSET`")
	f.Uint64Var(&o.to, "to", 0, "end before `OFFSET`")
	f.BoolVar(&o.events, "events", false, "also the events")
	f.BoolVar(&o.jsonl, "jsonl", false, "one JSON document per line")
	return cmd
}

// blockDoc is a line of log dump --jsonl.
type blockDoc struct {
	File     string     `json:"file"`
	Byte     int64      `json:"byte"`
	Kind     string     `json:"kind"`
	Base     uint64     `json:"base"`
	Events   uint32     `json:"events"`
	Ticket   uint64     `json:"ticket,omitempty"`
	Bytes    int        `json:"bytes"`
	Commit   *time.Time `json:"commit,omitempty"`
	Open     string     `json:"open,omitempty"` // the transaction of a chunk or commit
	Tx       []string   `json:"tx,omitempty"`
	Tables   []string   `json:"tables,omitempty"`
	Position string     `json:"position,omitempty"` // where the source stands after it
	Notices  int        `json:"notices,omitempty"`
	Table    string     `json:"table,omitempty"`
	Version  uint32     `json:"version,omitempty"`
}

func (a *commands) logDump(cmd *cobra.Command, args []string, dir string, o dumping) error {
	folders, err := a.logFolders(args, dir)
	if err != nil {
		return err
	}
	if len(folders) > 1 {
		return fault.Usage(cmd, "there are %d logs here: name a source", len(folders))
	}
	if o.to > 0 && o.to <= o.from {
		return fault.Usage(cmd, "--to %d is not behind --from %d", o.to, o.from)
	}
	s, err := disklog.Info(folders[0].dir)
	if err != nil {
		return err
	}
	var forms form.Cache
	enc := encode.JSON(encode.Options{Source: s.Source, Form: forms.Of, PublicURL: a.PublicURL()})
	err = disklog.Dump(cmd.Context(), folders[0].dir, pipeline.Offset(o.from), pipeline.Offset(o.to), func(e disklog.Entry) error {
		if err := a.block(e, o.jsonl); err != nil {
			return err
		}
		if o.events && e.Kind == record.KindRows {
			a.blockEvents(enc, e.Batch, o)
		}
		return a.Out.Err()
	})
	if errors.Is(err, context.Canceled) { // Ctrl-C: enough seen
		return nil
	}
	return err
}

func (a *commands) block(e disklog.Entry, jsonl bool) error {
	d := blockDoc{File: filepath.Base(e.File), Byte: e.Offset, Kind: e.Kind.String(), Base: uint64(e.Base), Events: e.Events, Ticket: e.Ticket, Bytes: e.Size()}
	if e.Time != 0 {
		d.Commit = when(time.UnixMicro(e.Time))
	}
	if b := e.Batch; b != nil {
		d.Open, d.Position, d.Notices = b.Open, b.End.Token, len(b.Notices)
		for _, t := range b.Txs {
			d.Tx = append(d.Tx, string(b.Bytes(t.ID)))
		}
		for _, t := range b.Tables {
			d.Tables = append(d.Tables, t.Subject())
		}
	}
	if e.Table != nil {
		d.Table, d.Version = e.Table.Subject(), e.Table.Version
	}
	if jsonl {
		line, err := json.Marshal(d)
		if err != nil {
			return err
		}
		a.Out.Printf("%s\n", line)
		return nil
	}
	text := fmt.Sprintf("%s:%d  %s  %d", d.File, d.Byte, screen.Pad(d.Kind, 7), d.Base)
	if d.Events > 0 {
		text += fmt.Sprintf("+%d", d.Events)
	}
	text += "  " + screen.Size(uint64(d.Bytes))
	if d.Commit != nil {
		text += "  " + d.Commit.Format(time.RFC3339Nano)
	}
	for i, t := range d.Tx {
		if i == 3 {
			text += fmt.Sprintf(" and %d more", len(d.Tx)-i)
			break
		}
		text += " tx " + t
	}
	for _, t := range d.Tables {
		text += "  " + t
	}
	if d.Table != "" {
		text += fmt.Sprintf("  %s version %d", d.Table, d.Version)
	}
	if d.Position != "" {
		text += "  to " + screen.Position(d.Position)
	}
	a.Out.Printf("%s\n", screen.Clean(text))
	return nil
}

func (a *commands) blockEvents(enc *encode.Encoder, b *pipeline.Batch, o dumping) {
	for i := range b.Events {
		at := uint64(b.Offset(i))
		if at < o.from || o.to > 0 && at >= o.to {
			continue
		}
		text, err := enc.Append(nil, b, i, pipeline.OpNone)
		switch {
		case err != nil && o.jsonl:
			line, _ := json.Marshal(map[string]any{"offset": at, "error": err.Error()}) // a map of texts
			a.Out.Printf("%s\n", line)
		case err != nil:
			a.Out.Printf("    %d: %s\n", at, screen.Clean(err.Error()))
		case o.jsonl:
			a.Out.Printf("%s\n", text)
		default:
			a.Out.Printf("    %d  ", at)
			events.Print(a.App, text)
		}
	}
}
