package servers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// PostgresStandby starts a physical standby of primary and returns when it answers queries. primary is an own
// server that trusts everybody; it is stopped to be copied and started again. params are settings over
// those of the primary's defaults; the slots of the primary are not copied. `select pg_promote()` ends its
// being a standby.
func PostgresStandby(ctx context.Context, primary *Server, params map[string]string) (*Server, error) {
	if primary.Kind != KindPostgres || primary.folder == nil {
		return nil, fmt.Errorf("copy %s: %w", primary.Kind, ErrGiven)
	}
	as := process.Unprivileged()
	if err := primary.Shutdown(ctx); err != nil {
		return nil, err
	}
	open := []string{"host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"}
	s, err := newServer(KindPostgres, primary.Dir, as)
	if err == nil {
		err = writeHBA(filepath.Join(primary.Dir, "pg_hba.conf"), open, as)
	}
	if err = errors.Join(err, primary.Restart(ctx)); err != nil {
		if s != nil {
			return s.fail(err)
		}
		return nil, err
	}
	s.BinDir, s.Version = primary.BinDir, primary.Version
	if err := s.asStandby(as); err != nil {
		return s.fail(err)
	}
	all := postgresParams()
	all["fsync"], all["full_page_writes"] = "off", "off"
	all["hba_file"] = filepath.Join(s.Dir, "pg_hba.conf")
	all["hot_standby_feedback"], all["wal_retrieve_retry_interval"] = "on", "100ms"
	all["primary_conninfo"] = fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=postgres sslmode=disable", primary.Port)
	maps.Copy(all, TestParams())
	maps.Copy(all, params)
	if err := s.startPostgres(ctx, PostgresOptions{HBA: open}, all, as); err != nil {
		return s.fail(err)
	}
	return s, nil
}

// asStandby makes the copied data folder one that follows.
func (s *Server) asStandby(as *process.Identity) error {
	slots := filepath.Join(s.DataDir, "pg_replslot")
	list, err := os.ReadDir(slots)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := os.RemoveAll(filepath.Join(slots, e.Name())); err != nil {
			return err
		}
	}
	signal := filepath.Join(s.DataDir, "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return err
	}
	return process.Chown(signal, as)
}
