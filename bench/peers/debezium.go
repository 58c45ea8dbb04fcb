package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/internal/servers"
)

// settings of Debezium Server for throughput: large batches and queues, JSON without a schema in each record.
func (b *bench) settings() string {
	p := map[string]string{"debezium.sink.type": "kafka", "quarkus.log.level": "INFO",
		"debezium.format.key": "json", "debezium.format.value": "json", "debezium.format.key.schemas.enable": "false", "debezium.format.value.schemas.enable": "false"}
	for k, v := range map[string]string{"bootstrap.servers": b.kafka, "key.serializer": "org.apache.kafka.common.serialization.StringSerializer",
		"value.serializer": "org.apache.kafka.common.serialization.StringSerializer", "acks": "all", "enable.idempotence": "true", "linger.ms": "5", "batch.size": "1000000",
		"buffer.memory": "134217728", "compression.type": b.o.compression} {
		p["debezium.sink.kafka.producer."+k] = v
	}
	source := b.db.properties(b.s)
	maps.Copy(source, map[string]string{"topic.prefix": "dbz", "offset.storage.file.filename": "offsets.dat", "offset.flush.interval.ms": "1000", "snapshot.mode": "no_data",
		"max.batch.size": "8192", "max.queue.size": "65536", "poll.interval.ms": "5"})
	for k, v := range source {
		p["debezium.source."+k] = v
	}
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&text, "%s=%s\n", k, p[k])
	}
	return text.String()
}

// startDebezium returns what stops it, its log, and what tells its CPU time.
func (b *bench) startDebezium(ctx context.Context) (stop func() error, log string, cpu func() time.Duration, err error) {
	dir := filepath.Join(b.folder, "debezium")
	if err := os.MkdirAll(filepath.Join(dir, "config"), 0o755); err != nil {
		return nil, "", nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "config", "application.properties"), []byte(b.settings()), 0o600); err != nil {
		return nil, "", nil, err
	}
	port, err := process.FreePort()
	if err != nil {
		return nil, "", nil, err
	}
	cmd, err := servers.Debezium(ctx, say, dir, b.o.heap, port)
	if err != nil {
		return nil, "", nil, err
	}
	log = filepath.Join(dir, "debezium.log")
	out, err := os.Create(log)
	if err != nil {
		return nil, "", nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, "", nil, fmt.Errorf("start Debezium Server: %w", err)
	}
	return func() error { return end(cmd) }, log, func() time.Duration { return process.CPUTime(cmd.Process.Pid) }, nil
}

// end stops it as SIGTERM does, by force after a while. How it ended is no error here.
func end(cmd *exec.Cmd) error {
	timer := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

// place starts it until it streams, so that it stands at the end.
func (b *bench) place(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	stop, log, _, err := b.startDebezium(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	// Its health says that it is up before its place is known. What is written now makes it keep the place.
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for id := -1; ; {
		text := logTail(log)
		if strings.Contains(text, "Processing messages") || strings.Contains(text, "Connected to binlog at") || strings.Contains(text, "Keepalive thread is running") || id < -1 {
			if err := b.s.Exec(ctx, fmt.Sprintf("insert into %s (id) values (%d)", strings.TrimPrefix(b.db.topic(), "dbz."), id)); err != nil {
				return err
			}
			id--
			if n, err := b.count(ctx, b.db.topic()); err != nil || n > 0 {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not stream: %w; the end of its log:\n%s", ctx.Err(), logTail(log))
		case <-tick.C:
		}
	}
}

// debezium reads the backlog and produces it.
func (b *bench) debezium(ctx context.Context) (m measured, err error) {
	return b.timed(ctx, b.db.topic(), b.o.rows, func() (func() error, func() time.Duration, error) {
		stop, log, cpu, err := b.startDebezium(ctx)
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			if err := stop(); err != nil {
				return fmt.Errorf("%w\n%s", err, logTail(log))
			}
			return nil
		}, cpu, nil
	})
}
