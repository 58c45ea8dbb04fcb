package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
)

// Command is leat log.
func Command(app *shell.App) *cobra.Command {
	a := &commands{app}
	cmd := fault.Group(&cobra.Command{Use: "log", Short: "The log on disk: what is in it, whether it is whole, its records"})
	cmd.Long = "These commands read the data folder itself, also while the server runs, and change nothing."
	var dir string
	info := &cobra.Command{
		Use:     "info [SOURCE]",
		Short:   "What is in the log: offsets, times, sizes, tables",
		Example: "  leat log info\n  leat log info files --json",
		RunE:    func(_ *cobra.Command, args []string) error { return a.logInfo(args, dir) },
	}
	a.JSONFlag(info)
	verify := &cobra.Command{
		Use:   "verify [SOURCE]",
		Short: "Read every byte of the log and list what is damaged",
		Long: "Reads the whole log and compares it with its checksums. What was being written when a machine stopped is\n" +
			"torn, not damaged: it is cut at the next start. Exit code 1 when something is damaged.",
		Example: "  leat log verify\n  leat log verify files --json",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.logVerify(cmd.Context(), args, dir) },
	}
	a.JSONFlag(verify)
	cmd.AddCommand(info, verify, a.logDumpCommand(&dir))
	for _, c := range cmd.Commands() {
		c.Args = fault.Wants("[SOURCE]")
		c.ValidArgsFunction = a.Names(true, false)
		c.Flags().StringVar(&dir, "dir", "", "the log in `FOLDER`, instead of those of the data folder")
	}
	return cmd
}

// logFolder is one log to look at.
type logFolder struct{ source, dir string }

// logFolders are the logs that a command is about: that in dir, that of the source named, or all.
func (a *commands) logFolders(args []string, dir string) ([]logFolder, error) {
	if dir != "" {
		if len(args) > 0 {
			return nil, fault.New(fault.WrongUsage, errors.New("--dir and a source's name are two ways to say the same: give one"), "")
		}
		return []logFolder{{"", dir}}, nil
	}
	if a.LogDir == nil {
		return nil, fault.Unsupported("leat log without --dir")
	}
	data, err := a.Data()
	if err != nil {
		return nil, err
	}
	if len(args) > 0 {
		if args[0] != plainName(args[0]) {
			return nil, fault.New(fault.WrongUsage, fmt.Errorf("%q is no name of a source", args[0]), "")
		}
		return []logFolder{{args[0], a.LogDir(data, args[0])}}, nil
	}
	entries, err := os.ReadDir(a.LogDir(data, ""))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the logs: %w", err)
	}
	var out []logFolder
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, logFolder{e.Name(), a.LogDir(data, e.Name())})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no log in %s yet", data)
	}
	return out, nil
}

// plainName is a name as sources have them; anything else could lead out of the data folder.
func plainName(s string) string {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return ""
		}
	}
	return s
}

// The documents of log info --json.
type logDoc struct {
	Source   string            `json:"source"`
	ID       string            `json:"log_id"`
	Created  time.Time         `json:"created"`
	Format   int               `json:"format"`
	Oldest   uint64            `json:"oldest"`
	Next     uint64            `json:"next"`
	Position string            `json:"position"`
	Bytes    int64             `json:"bytes"`
	Segments []segmentDoc      `json:"segments"`
	Tables   []tableDoc        `json:"tables"`
	Notices  []shell.NoticeDoc `json:"notices"`
}

type segmentDoc struct {
	File   string     `json:"file"`
	Bytes  int64      `json:"bytes"`
	Used   int64      `json:"used"`
	First  uint64     `json:"first"`
	Next   uint64     `json:"next"`
	Oldest *time.Time `json:"oldest_commit"`
	Newest *time.Time `json:"newest_commit"`
	Sealed bool       `json:"sealed"`
}

type tableDoc struct {
	Name    string   `json:"name"`
	Version uint32   `json:"version"`
	Columns []string `json:"columns"`
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func logDocument(s disklog.Summary) logDoc {
	d := logDoc{Source: s.Source, ID: s.ID, Created: s.Created.UTC(), Format: s.Format, Oldest: uint64(s.Oldest), Next: uint64(s.Next),
		Position: s.Last.Token, Segments: []segmentDoc{}, Tables: []tableDoc{}, Notices: []shell.NoticeDoc{}}
	for _, g := range s.Segments {
		d.Bytes += g.Size
		d.Segments = append(d.Segments, segmentDoc{filepath.Base(g.File), g.Size, g.Used, uint64(g.First), uint64(g.Next), when(g.Oldest), when(g.Newest), g.Sealed})
	}
	for _, t := range s.Tables {
		one := tableDoc{Name: t.Subject(), Version: t.Version, Columns: []string{}}
		for _, c := range t.Columns {
			one.Columns = append(one.Columns, c.Name)
		}
		d.Tables = append(d.Tables, one)
	}
	for _, n := range s.Notices {
		d.Notices = append(d.Notices, shell.NoticeDoc{Kind: noticeKinds[n.Kind], Code: n.Code, Table: n.Table, Position: n.Position, Reason: n.Reason, Cure: n.Cure, Time: when(n.Time)})
	}
	return d
}

var noticeKinds = map[pipeline.NoticeKind]string{
	pipeline.NoticeQuarantined: "quarantined", pipeline.NoticeReleased: "released", pipeline.NoticeGap: "gap", pipeline.NoticeFilled: "filled",
}

func (a *commands) logInfo(args []string, dir string) error {
	folders, err := a.logFolders(args, dir)
	if err != nil {
		return err
	}
	docs := []logDoc{}
	for _, f := range folders {
		s, err := disklog.Info(f.dir)
		if err != nil {
			return err
		}
		docs = append(docs, logDocument(s))
	}
	if a.JSON {
		return a.Document(map[string]any{"logs": docs})
	}
	for i, d := range docs {
		if i > 0 {
			a.Out.Printf("\n")
		}
		a.printLog(d)
	}
	return nil
}

func (a *commands) printLog(d logDoc) {
	a.Out.Printf("%s\n", a.Out.Paint(screen.Bold, "log of "+screen.Clean(d.Source)))
	a.Out.Pairs([2]string{"id", d.ID}, [2]string{"created", screen.Time(d.Created)}, [2]string{"format", fmt.Sprint(d.Format)},
		[2]string{"offsets", screen.Offsets(d.Oldest, d.Next)}, [2]string{"position", d.Position}, [2]string{"size", screen.Size(uint64(d.Bytes))})
	if len(d.Segments) > 0 {
		a.Out.Printf("\n")
		t := screen.NewTable("SEGMENT", ">SIZE", ">USED", ">FIRST", ">EVENTS", "OLDEST", "NEWEST")
		t.Spare("OLDEST", "USED")
		for _, g := range d.Segments {
			t.Row(screen.Text(g.File), screen.Text(screen.Size(uint64(g.Bytes))), screen.Text(screen.Size(uint64(g.Used))), screen.Text(screen.Number(g.First)),
				screen.Text(screen.Count(screen.Kept(g.First, g.Next))), screen.Text(screen.TimeOf(g.Oldest)), screen.Text(screen.TimeOf(g.Newest)))
		}
		a.Out.Print(t)
	}
	if len(d.Tables) > 0 {
		a.Out.Printf("\n")
		t := screen.NewTable("TABLE", ">VERSION", ">COLUMNS")
		for _, x := range d.Tables {
			t.Row(screen.Text(x.Name), screen.Text(fmt.Sprint(x.Version)), screen.Text(fmt.Sprint(len(x.Columns))))
		}
		a.Out.Print(t)
	}
	for _, n := range d.Notices {
		a.Out.Printf("! %s: %s: %s\n", screen.Clean(n.Table), n.Kind, screen.Clean(n.Reason))
		if n.Cure != "" {
			a.Out.Printf("  → %s\n", screen.Clean(n.Cure))
		}
	}
}
