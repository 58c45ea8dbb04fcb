package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/leat-cdc/leat/bench/process"
)

// walRole reads PostgreSQL's stream from where it stands, asking for what Leat asks for, keeps nothing, and notes when
// each commit arrives that is not of a streamed transaction: what the server lets through, which no subscriber can come
// before. It says when it begins, and when a streamed transaction has come as a whole.
func walRole(args []string) error {
	f := flag.NewFlagSet("wal-floor", flag.ContinueOnError)
	url := f.String("url", "", "of the server, with replication=database")
	publication := f.String("publication", "", "name")
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, cancel := process.UntilParentEnds()
	defer cancel()
	conn, err := pgconn.Connect(ctx, *url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const slot = "wal_floor"
	made, err := pglogrepl.CreateReplicationSlot(ctx, conn, slot, "pgoutput", pglogrepl.CreateReplicationSlotOptions{Temporary: true})
	if err != nil {
		return err
	}
	at, err := pglogrepl.ParseLSN(made.ConsistentPoint)
	if err != nil {
		return err
	}
	err = pglogrepl.StartReplication(ctx, conn, slot, at, pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '4'", "streaming 'parallel'", "publication_names '" + *publication + "'"}})
	if err == nil {
		err = process.Print(heard{})
	}
	if err != nil {
		return err
	}
	var h heard
	for told := time.Now(); ; {
		m, err := conn.ReceiveMessage(ctx)
		if ctx.Err() != nil {
			return process.Print(h)
		}
		if err != nil {
			return err
		}
		data, ok := m.(*pgproto3.CopyData)
		if !ok {
			return fmt.Errorf("the server says %T", m)
		}
		if err := h.copied(data.Data); err != nil {
			return err
		}
		if len(data.Data) > 17 {
			at = max(at, pglogrepl.LSN(binary.BigEndian.Uint64(data.Data[1:])))
		}
		if time.Since(told) > time.Second {
			told = time.Now()
			if err := pglogrepl.SendStandbyStatusUpdate(ctx, conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: at}); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// copied takes one message of the stream.
// https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
func (h *heard) copied(p []byte) error {
	const head, epoch = 25, 946_684_800_000_000 // of XLogData; 2000 in µs since 1970
	if len(p) <= head || p[0] != 'w' {
		return nil
	}
	switch p = p[head:]; {
	case p[0] == 'C' && len(p) >= 26:
		h.Beats = append(h.Beats, beat{int64(binary.BigEndian.Uint64(p[18:])) + epoch, time.Now().UnixMicro()})
	case p[0] == 'c':
		return process.Print(heard{})
	}
	return nil
}

// alone does with a plain reader of the stream what large does with Leat. Nothing where there is none for the database.
func (b *bench) alone(ctx context.Context, w *workload, begin func(context.Context) (func() error, error)) (err error) {
	p, ok := b.db.(*postgres)
	if !ok {
		return nil
	}
	c, err := process.StartChild(ctx, "wal-floor", "-url", p.s.URL+"&replication=database", "-publication", "leat_"+w.name)
	if err != nil {
		return err
	}
	var h heard
	var to time.Time
	if err = c.Next(&h); err == nil {
		_, to, err = b.beside(ctx, w, c, begin)
	}
	settle(ctx) // for the last beats
	b.spent(ctx, "the server alone")
	if err = errors.Join(err, c.Stop(&h), p.s.Exec(ctx, "truncate large")); err != nil {
		return err
	}
	during, behind := h.parted(to)
	b.delay("the server alone, beside it", during, nil)
	b.delay("the server alone, behind its commit", behind, nil)
	return nil
}

// spent says what the server's process that sends the stream has cost.
func (b *bench) spent(ctx context.Context, who string) {
	p, ok := b.db.(*postgres)
	if !ok {
		return
	}
	conn, err := pgconn.Connect(ctx, p.s.URL)
	if err != nil {
		return
	}
	defer conn.Close(ctx)
	all, err := conn.Exec(ctx, "select pid from pg_stat_replication").ReadAll()
	if err != nil || len(all) == 0 {
		return
	}
	for _, row := range all[0].Rows {
		if pid, err := strconv.Atoi(string(row[0])); err == nil {
			process.Say("%s: large: %s: the walsender took %.1f s of CPU", b.name, who, process.CPUTime(pid).Seconds())
		}
	}
}

// parted tells the beats before a moment from those behind it.
func (h *heard) parted(at time.Time) (before, behind []beat) {
	for _, x := range h.Beats {
		if x.Sent < at.UnixMicro() {
			before = append(before, x)
		} else {
			behind = append(behind, x)
		}
	}
	return before, behind
}
