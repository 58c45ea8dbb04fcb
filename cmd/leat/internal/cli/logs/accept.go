package logs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/pipeline/disklog"
)

// Accept is leat source accept.
func Accept(app *shell.App) *cobra.Command {
	a := &commands{app}
	var yes bool
	cmd := &cobra.Command{
		Use:   "accept NAME",
		Short: "Let a source that lost its position begin anew, behind the log that it has",
		Long: "For a source whose slot is gone or whose binlog was purged: what changed meanwhile cannot be streamed.\n" +
			"The log stays, subscriptions keep their cursors and go on; every table is marked with a gap that\n" +
			"leat backfill fills. leat run must not run; its next start begins where the database can: in MySQL right\n" +
			"behind what was purged, else now. Asks for the name first.",
		Example:           "  leat source accept files\n  leat backfill search --table public.files",
		Args:              fault.Wants("NAME"),
		ValidArgsFunction: a.Names(true, false),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.accept(cmd.Context(), args[0], yes) },
	}
	shell.YesFlag(cmd, &yes)
	a.JSONFlag(cmd)
	return cmd
}

func (a *commands) accept(ctx context.Context, name string, yes bool) (err error) {
	folders, err := a.logFolders([]string{name}, "")
	if err != nil {
		return err
	}
	dir := folders[0].dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.WrongUsage, fmt.Errorf("source %s has no log here", screen.Clean(name)), "leat log info lists those that have")
	}
	log, err := disklog.Open(disklog.Options{Dir: dir, Source: name})
	if err != nil {
		return fmt.Errorf("source accept %s: %w", screen.Clean(name), err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	last, tables := log.Last(), log.Tables()
	if last.Zero() {
		return fault.New(fault.WrongUsage, fmt.Errorf("source %s has no position yet: there is nothing to accept", screen.Clean(name)), "")
	}
	question := fmt.Sprintf("%s goes on from where its database can begin now; what changed since %s and is not there any more\nis missing in %d tables until it is backfilled.",
		screen.Clean(name), screen.Clean(last.Token), len(tables))
	if err := a.Confirm(ctx, yes, question, name); err != nil {
		return err
	}
	b := pipeline.NewBatch()
	b.End = last.Anew()
	for _, t := range tables {
		b.Notices = append(b.Notices, pipeline.Notice{Kind: pipeline.NoticeGap, Code: "position", Table: t.Subject(), Position: last.Token, Time: time.Now().UTC(),
			Reason: "the source lost its position, and a new one was accepted: what changed between did not enter the log", Cure: pipeline.BringRows})
	}
	ticket, err := log.Append(ctx, b)
	if err == nil {
		_, err = log.Synced(ctx, ticket-1)
	}
	if err != nil {
		return fmt.Errorf("source accept %s: %w", screen.Clean(name), err)
	}
	if a.JSON {
		return a.Document(map[string]any{"source": name, "lost": last.Token, "tables": len(tables)})
	}
	a.Out.Printf("%s begins anew at the next start of leat run; %d tables are marked: leat status lists them\n", screen.Clean(name), len(tables))
	return nil
}
