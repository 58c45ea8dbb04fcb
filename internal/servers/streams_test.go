package servers_test

import (
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// Killed ones come back on the same port, where Restart waits until they answer as what they are.
func TestStreamServers(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *servers.Server{
		"valkey": func(t testing.TB) *servers.Server { return servertest.ExclusiveValkey(t, servers.ValkeyOptions{}) },
		"nats":   func(t testing.TB) *servers.Server { return servertest.ExclusiveNATS(t, servers.NATSOptions{}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			if err := s.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
