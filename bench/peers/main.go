// Command peers measures Leat beside Debezium Server: both read the same backlog of the same database and produce it to
// the same Kafka, one after the other (`make bench-peers`). The rate is that of records that appear in Kafka, from
// the first that was seen to the last; how long each needs to start is told beside it.
//
// Then Leat alone, from a log that was filled before, in each encoding: what the Kafka sink takes. Below each of these
// lines stands what the broker takes of the same records on the same cores when they are ready-made.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/bench/process"
	"github.com/leat-cdc/leat/internal/servers"
)

type options struct {
	rows, runs, sinkRuns, partitions int
	databases, encodings             []string
	compression, heap                string
	live, peer                       bool
	dir, leat, profile               string
	timeout                          time.Duration
}

// wanted is how many times Debezium's rate Leat's is to be.
var wanted = map[string]float64{"postgres": 6, "mysql": 8, "mariadb": 8}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	var o options
	var databases, encodings string
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.IntVar(&o.rows, "rows", 1_000_000, "rows of the backlog, about 180 bytes each, 100 in a transaction")
	f.IntVar(&o.runs, "runs", 1, "how often each reads a backlog of its own size")
	f.IntVar(&o.partitions, "partitions", 4, "partitions of each topic")
	f.StringVar(&databases, "databases", "postgres,mysql", "which databases: postgres, mysql, mariadb")
	f.StringVar(&o.compression, "compression", "none", "of Leat's and Debezium's batches")
	f.StringVar(&o.heap, "heap", "2g", "of Debezium's JVM")
	f.StringVar(&encodings, "encodings", "json,avro,protobuf", "of the events that go from a filled log into Kafka; empty: that is not measured")
	f.IntVar(&o.sinkRuns, "sink-runs", 1, "how often the filled log goes into Kafka in each encoding")
	f.BoolVar(&o.live, "live", true, "measure who reads a backlog of the database")
	f.BoolVar(&o.peer, "peer", true, "measure Debezium Server, too")
	f.StringVar(&o.dir, "dir", "", "data goes into a new folder below this `folder`; it should be on a real disk")
	f.StringVar(&o.leat, "leat", "", "measure this `program` instead of building bin/leat")
	f.StringVar(&o.profile, "profile", "", "write CPU profiles of the runs from a filled log to this `file`, with the encoding behind its name")
	f.DurationVar(&o.timeout, "timeout", 20*time.Minute, "of each measurement")
	if err := f.Parse(args); err != nil {
		return err
	}
	o.databases = strings.Split(databases, ",")
	if encodings != "" {
		o.encodings = strings.Split(encodings, ",")
	}
	if o.dir, err = os.MkdirTemp(o.dir, "leat-peers-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.dir)
	if o.leat == "" {
		if o.leat, err = process.Build(ctx); err != nil {
			return err
		}
	}
	k, err := servers.Kafka(ctx, servers.KafkaOptions{Heap: "1g", Params: map[string]string{"auto.create.topics.enable": "true", "num.partitions": fmt.Sprint(o.partitions)}, Say: say})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Stop(context.WithoutCancel(ctx))) }()
	fmt.Printf("%d rows, %d partitions, compression %s, Kafka %s, Debezium's heap %s\n", o.rows, o.partitions, o.compression, k.Version, o.heap)
	address := k.Listeners[servers.ListenerPlain]
	transport := &kafka.Transport{MetadataTTL: 200 * time.Millisecond} // topics are made meanwhile
	defer transport.CloseIdleConnections()
	for _, name := range o.databases {
		b := &bench{o: o, name: name, kafka: address, broker: k, client: &kafka.Client{Addr: kafka.TCP(address), Timeout: time.Minute, Transport: transport}, folder: filepath.Join(o.dir, name)}
		if err := b.database(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func say(s string) { process.Say("%s", s) }
