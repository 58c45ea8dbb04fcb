package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// bench is one database with those who read it.
type bench struct {
	o      options
	name   string
	kafka  string
	broker *servers.Server
	client *kafka.Client
	folder string
	db     database
	s      *servers.Server
}

// measured is one run.
type measured struct {
	rate  float64       // records a second, from the first that was seen
	start time.Duration // until then
	// CPU seconds per million records while the rate was measured: of whoever produced and of the broker; 0: not known.
	cpu, broker float64
	bytes       float64 // of a record, as the broker keeps it
}

// database measures all on one database.
func (b *bench) database(ctx context.Context) (err error) {
	if b.s, b.db, err = start(ctx, b.name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.s.Stop(context.WithoutCancel(ctx))) }()
	if err := b.s.Exec(ctx, b.db.tables()...); err != nil {
		return err
	}
	// Each stands where the backlog will begin before it is written.
	if err := b.position(ctx); err != nil {
		return err
	}
	for i := range b.o.runs {
		process.Say("%s: run %d: writing %d rows", b.name, i+1, b.o.rows)
		if err := b.db.fill(ctx, b.s, b.o.rows); err != nil {
			return err
		}
		if !b.o.live {
			continue
		}
		ours, err := b.leat(ctx)
		if err != nil {
			return fmt.Errorf("leat: %w", err)
		}
		b.line("leat", ours, "")
		if b.o.peer {
			theirs, err := b.debezium(ctx)
			if err != nil {
				return fmt.Errorf("debezium: %w", err)
			}
			b.line("debezium", theirs, fmt.Sprintf("   leat is %.1f × as fast, wanted: %.0f ×", ours.rate/theirs.rate, wanted[b.name]))
		}
	}
	if len(b.o.encodings) == 0 {
		return nil
	}
	if err := b.sink(ctx); err != nil {
		return fmt.Errorf("leat from its log: %w", err)
	}
	return nil
}

func (b *bench) line(who string, m measured, more string) {
	fmt.Printf("%-9s %-16s %9.0f records/s, CPU s per million: own %5.2f, broker %5.2f; %4.0f bytes each; the first after %.1f s%s\n",
		b.name, who, m.rate, m.cpu, m.broker, m.bytes, m.start.Seconds(), more)
}

// position starts each once, so that it stands at the end, and stops it.
func (b *bench) position(ctx context.Context) error {
	if b.o.peer && b.o.live {
		process.Say("%s: Debezium Server finds its place", b.name)
		if err := b.place(ctx); err != nil {
			return fmt.Errorf("debezium: %w", err)
		}
	}
	for _, folder := range []string{"leat", "log"} {
		s, err := b.launch(ctx, folder, "", "", "")
		if err != nil {
			return err
		}
		err = s.WaitFor(ctx, "the source to stream", func(st *leatv1.StatusResponse) bool {
			return len(st.Sources) == 1 && st.Sources[0].State == "streaming"
		})
		if _, stopErr := s.Stop(); err != nil || stopErr != nil {
			return errors.Join(err, stopErr)
		}
	}
	return nil
}

func (b *bench) launch(ctx context.Context, folder, topic, encoding, profile string) (*process.Server, error) {
	subscriptions := ""
	if topic != "" {
		subscriptions = fmt.Sprintf("  %s:\n    source: bench\n    deliver: {kafka: {brokers: ['%s'], topic: '%s', encoding: %s, compression: %s, topics: {partitions: %d}}}\n", topic, b.kafka, topic, encoding, b.o.compression, b.o.partitions)
	}
	return process.Start(ctx, b.o.leat, filepath.Join(b.folder, folder), "512MiB", b.db.source(b.s, folder), subscriptions, profile)
}

// leat reads the backlog and produces it.
func (b *bench) leat(ctx context.Context) (m measured, err error) {
	topic := "leat-" + b.name
	return b.timed(ctx, topic, b.o.rows, func() (func() error, func() time.Duration, error) {
		s, err := b.launch(ctx, "leat", topic, "json", "")
		if err != nil {
			return nil, nil, err
		}
		return func() error { return second(s.Stop()) }, s.CPU, nil
	})
}

func second[A any](_ A, err error) error { return err }

// timed starts something and looks how fast a topic grows by so many records.
func (b *bench) timed(ctx context.Context, topic string, rows int, start func() (stop func() error, cpu func() time.Duration, err error)) (m measured, err error) {
	ctx, cancel := context.WithTimeout(ctx, b.o.timeout)
	defer cancel()
	before, err := b.count(ctx, topic)
	if err != nil {
		return m, err
	}
	total, begin := before+int64(rows), time.Now()
	stop, cpu, err := start()
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	if cpu == nil {
		cpu = func() time.Duration { return 0 }
	}
	spent := func() (own, broker time.Duration) { return cpu(), process.CPUTime(b.broker.Pid()) }
	var first time.Time
	var had int64
	var own, broker time.Duration
	for {
		n, err := b.count(ctx, topic)
		if err != nil {
			return m, err
		}
		if now := time.Now(); n > before && first.IsZero() {
			first, had, m.start = now, n, now.Sub(begin)
			own, broker = spent()
		}
		if n >= total {
			if m.rate = float64(n-had) / time.Since(first).Seconds(); n == had {
				m.rate = float64(n-before) / time.Since(begin).Seconds()
				return m, nil
			}
			o, k := spent()
			m.cpu, m.broker = (o-own).Seconds()/float64(n-had)*1e6, (k-broker).Seconds()/float64(n-had)*1e6
			m.bytes = float64(b.stored(topic)) / float64(n)
			return m, nil
		}
		select {
		case <-ctx.Done():
			return m, fmt.Errorf("%d of %d records came: %w", n, total, ctx.Err())
		case <-tick.C:
		}
	}
}

// count is how many records a topic has; 0 where there is none. A topic that is being made has no leaders yet.
func (b *bench) count(ctx context.Context, topic string) (n int64, err error) {
	for range 200 {
		if n, err = b.countNow(ctx, topic); err == nil || ctx.Err() != nil {
			break
		}
		<-time.NewTimer(50 * time.Millisecond).C
	}
	return n, err
}

func (b *bench) countNow(ctx context.Context, topic string) (n int64, err error) {
	meta, err := b.client.Metadata(ctx, &kafka.MetadataRequest{}) // asked for by name it would be made
	if err != nil {
		return 0, err
	}
	var ask []kafka.OffsetRequest
	for _, t := range meta.Topics {
		for _, p := range t.Partitions {
			if t.Name == topic {
				ask = append(ask, kafka.LastOffsetOf(p.ID))
			}
		}
	}
	if len(ask) == 0 {
		return 0, nil
	}
	resp, err := b.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: ask}})
	if err != nil {
		return 0, err
	}
	for _, p := range resp.Topics[topic] {
		if p.Error != nil {
			return 0, p.Error
		}
		n += p.LastOffset
	}
	return n, nil
}

func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// logTail is the end of a file, for errors.
func logTail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text[max(0, len(text)-2000):])
}
