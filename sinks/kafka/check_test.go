package kafka

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// What a check finds, and that it leaves nothing behind.
func TestCheck(t *testing.T) {
	k := servertest.Kafka(t, servers.KafkaOptions{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	at := k.Listeners[servers.ListenerPlain]
	there := options(t, at)
	there.Create.Config = map[string]string{"max.message.bytes": "5000"}
	deliver(t, newSink(t, there), deliveryOf(t, 1000, inserts(1, 3)...))
	guest := there
	guest.Brokers, guest.SASL = []string{k.Listeners[servers.ListenerSASL]}, SASL{"PLAIN", servers.KafkaGuest, servers.KafkaGuest}
	t.Run("all", func(t *testing.T) {
		for name, c := range map[string]struct {
			o    Options
			want string
		}{
			"fine":         {options(t, at), ""},
			"nobody":       {options(t, closed), "unreachable"},
			"no topic":     {func() Options { o := options(t, at); o.Create.Off = true; return o }(), "topic_missing"},
			"too many":     {func() Options { o := options(t, at); o.Create.Replicas = 3; return o }(), "topic_create"},
			"odd setting":  {func() Options { o := options(t, at); o.Create.Config = map[string]string{"nosuch": "1"}; return o }(), "topic_create"},
			"whole":        {wholeOptions(t, at), ""},
			"for too long": {func() Options { o := wholeOptions(t, at); o.Whole.Timeout = 24 * time.Hour; return o }(), "transaction_timeout"},
			"small topics": {there, "max_message_bytes"},
			"no rights":    {guest, "transactional_id topic"},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if c.o.Brokers[0] == "" {
					return // the Kafka that was given has no such listener
				}
				var codes []string
				for _, f := range newSink(t, c.o).Check(testContext(t), []*schemas.Table{filesTable}) {
					if codes = append(codes, f.Code); f.What == "" || f.Cure == "" && f.Code != "topic" {
						t.Errorf("%+v", f)
					}
				}
				if got := strings.Join(codes, " "); got != c.want && !(name == "no rights" && strings.HasPrefix(got, "transactional_id topic")) {
					t.Errorf("found %s, want %s", got, c.want)
				}
			})
		}
	})
	long := wholeOptions(t, at)
	long.Whole.Timeout = 24 * time.Hour
	if e := whole(t, newSink(t, long), deliveryOf(t, 1000, inserts(1, 3)...)); e.Class != pipeline.Unavailable || !strings.Contains(e.Reason, maxTimeout) {
		t.Error(e)
	}
	got := read(t, there.ID, kgo.SeedBrokers(at)).until(2)
	if n, err := endOf(t, at, there.ID); len(got) != 2 || n != 3 || err != nil { // two records and a marker
		t.Errorf("%d records, end %d, %v", len(got), n, err)
	}
}

func endOf(t *testing.T, at, topic string) (int64, error) {
	conn, err := kafka.DialLeader(testContext(t), "tcp", at, topic, 0)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.ReadLastOffset()
}
