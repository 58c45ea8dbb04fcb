package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/leat-cdc/leat/bench/process"
)

// floorID is the server_id under which the floor's reader registers; Leat's own is derived from its source's name.
const floorID = 4_100_000_001

// floorRole reads a server's binlog from where it stands, keeps nothing, and notes when each row of a table arrives: what
// no subscriber can come before, in the same run. Its commit is one group for everybody, and so are its syncs.
func floorRole(args []string) error {
	f := flag.NewFlagSet("binlog-floor", flag.ContinueOnError)
	flavor := f.String("flavor", "", "mysql or mariadb")
	port := f.Uint("port", 0, "of the server, on 127.0.0.1")
	file := f.String("file", "", "binlog")
	at := f.Uint("at", 4, "position in it")
	table := f.String("table", "", "name")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := process.UntilParentEnds()
	defer cancel()
	syncer := replication.NewBinlogSyncer(replication.BinlogSyncerConfig{ServerID: floorID, Flavor: *flavor, Host: "127.0.0.1", Port: uint16(*port), User: "root",
		Logger: slog.New(slog.DiscardHandler)})
	defer syncer.Close()
	stream, err := syncer.StartSync(mysql.Position{Name: *file, Pos: uint32(*at)})
	if err != nil {
		return err
	}
	if err := process.Print(heard{}); err != nil {
		return err
	}
	var h heard
	for {
		e, err := stream.GetEvent(ctx)
		if ctx.Err() != nil {
			return process.Print(h)
		}
		if err != nil {
			return err
		}
		rows, ok := e.Event.(*replication.RowsEvent)
		if !ok || string(rows.Table.Table) != *table {
			continue
		}
		now := time.Now().UnixMicro()
		for _, r := range rows.Rows {
			if sent, ok := r[1].(int64); ok {
				h.Beats = append(h.Beats, beat{sent, now})
			}
		}
	}
}

// floor starts the reader; nil where there is none for the database.
func (b *bench) floor(ctx context.Context, w *workload) (*process.Child, error) {
	args, err := b.db.floor(ctx, w)
	if err != nil || args == nil {
		return nil, err
	}
	c, err := process.StartChild(ctx, "binlog-floor", args...)
	if err != nil {
		return nil, err
	}
	var ready heard
	return c, c.Next(&ready)
}

// floor implements database: PostgreSQL's own client writes what it gets when its buffer is full, so it is none.
func (p *postgres) floor(context.Context, *workload) ([]string, error) { return nil, nil }

// floor implements database.
func (m *maria) floor(ctx context.Context, w *workload) ([]string, error) {
	flavor, status := "mariadb", "show master status"
	if !m.mariadb() {
		flavor, status = "mysql", "show binary log status"
	}
	at, err := m.row(ctx, status, 2)
	if err != nil {
		return nil, err
	}
	return []string{"-flavor", flavor, "-port", fmt.Sprint(m.s.Port), "-file", at[0], "-at", at[1], "-table", w.name}, nil
}
