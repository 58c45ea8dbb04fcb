package pull_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/sinks/pull"
)

// TestEveryProtocolGetsTheSame: events go past connect's marshalling, several messages in one write; each protocol
// reads them as connect's own.
func TestEveryProtocolGetsTheSame(t *testing.T) {
	for name, opts := range map[string][]connect.ClientOption{
		"connect": nil, "connect JSON": {connect.WithProtoJSON()}, "gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()},
		"gRPC JSON": {connect.WithGRPC(), connect.WithProtoJSON()},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, pull.Options{}, opts...)
			var changes []change
			var want []string
			for i := range 1700 { // four leases of 500 at most, more than one write
				changes = append(changes, change{i, fmt.Sprintf("%d%s", i, strings.Repeat("x", 300))})
				want = append(want, changes[i].path)
			}
			changes[3].path = strings.Repeat("y", 600<<10) // a message larger than a write is
			want[3] = changes[3].path
			first, second := s.deliver(t.Context(), 1, batch(100, changes[:1000]...)), s.deliver(t.Context(), 2, batch(1100, changes[1000:]...))
			c := s.connect(t, "one")
			c.credit(len(changes))
			var got []string
			lease, tables := uint64(0), 0
			for len(got) < len(want) {
				e := c.events()
				if e.Source != "files" || e.Epoch == 0 || e.Deadline == nil || e.Lease <= lease || len(e.Events) > 500 {
					t.Fatalf("after lease %d: %d events of %q, lease %d, epoch %d, until %v", lease, len(e.Events), e.Source, e.Lease, e.Epoch, e.Deadline)
				}
				if got = append(got, paths(e)...); lease == 0 && len(e.Tables) != 1 {
					t.Fatal("the first message lacks its table")
				}
				lease, tables = e.Lease, tables+len(e.Tables)
			}
			if !slices.Equal(got, want) || tables > 2 { // each Delivery has a table version of its own
				t.Fatalf("%d events, %d tables, not as they were delivered", len(got), tables)
			}
			c.ack(lease)
			allOK(t, get(t, first))
			allOK(t, get(t, second))
		})
	}
}
