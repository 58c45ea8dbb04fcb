package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/leat-cdc/leat/pipeline"
	"github.com/leat-cdc/leat/schemas"
)

// oldest is the oldest version of Redis whose ranges can leave their end out.
const oldest = 602

// Check looks at the server, and at the streams of the tables; it changes nothing.
func (s *Sink) Check(ctx context.Context, tables []*schemas.Table) (found []pipeline.Finding) {
	find := func(level, code, what, cure string) {
		found = append(found, pipeline.Finding{Level: level, Code: code, What: what, Cure: cure})
	}
	info, err := s.client.Info(ctx).Result()
	var answer redis.Error
	switch {
	case redis.HasErrorPrefix(err, "NOPERM"): // who may not ask may write all the same
	case errors.As(err, &answer):
		find("error", "redis", s.reason(err), "")
		return found
	case err != nil:
		find("warning", "unreachable", s.reason(err), "start the server, or correct url; until then the subscription waits and loses nothing")
		return found
	default:
		if !s.checkServer(fieldsOf(info), find) {
			return found
		}
	}
	seen := map[string]bool{}
	for _, t := range tables {
		if name := s.o.Stream.Name(s.o.Source, s.o.Subscription, t, nil); !seen[name] {
			seen[name] = true
			if err := s.probe(ctx, name); err != nil {
				find("error", "redis_stream", s.reason(fmt.Errorf("stream %s: %w", name, err)), "")
			}
		}
	}
	return found
}

// fieldsOf reads the answer to INFO.
func fieldsOf(info string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[name] = value
		}
	}
	return all
}

// checkServer reports whether streams can be looked at.
func (s *Sink) checkServer(info map[string]string, find func(level, code, what, cure string)) bool {
	version := info["redis_version"]
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	if errA == nil && errB == nil && a*100+b < oldest {
		find("error", "redis_version", "the server is version "+version, "use Redis 6.2 or newer, or Valkey")
		return false
	}
	switch cluster := info["cluster_enabled"] == "1"; {
	case cluster && !s.o.Cluster:
		find("error", "redis_cluster", "the server is a node of a cluster", "add cluster: true")
		return false
	case info["role"] == "slave" && !cluster:
		find("error", "redis_replica", "the server is a replica, and takes no writes", "name the primary in url")
		return false
	}
	if policy := info["maxmemory_policy"]; info["maxmemory"] != "0" && strings.HasPrefix(policy, "allkeys") {
		find("warning", "redis_evicts", "the server removes whole streams when its memory is full (maxmemory-policy "+policy+")", "set maxmemory-policy noeviction or one of volatile-…")
	}
	if s.o.MaxLen == 0 {
		find("info", "redis_grows", "streams keep all entries until somebody trims them", "max_len bounds them; a reader that falls behind by more then loses entries")
	}
	if info["aof_enabled"] == "0" {
		find("warning", "redis_forgets", "the server keeps no append-only file: when it restarts, entries are gone of which Leat was told that they are there", "set appendonly yes on the server; or bring the rows again with leat backfill after a restart")
	}
	return true
}

// probe asks whether the stream may be looked at and written, by an id that cannot be: nothing is written.
func (s *Sink) probe(ctx context.Context, name string) error {
	if _, err := lastID(s.client.Do(ctx, "XINFO", "STREAM", name)); err != nil {
		return err
	}
	if err := s.client.XRevRangeN(ctx, name, "+", "-", 1).Err(); err != nil {
		return err
	}
	err := s.client.Do(ctx, "XADD", name, "0-0", fieldID, "").Err()
	if redis.HasErrorPrefix(err, "The ID specified in XADD must be greater than 0-0") {
		return nil
	}
	return err
}

// reason is what a Delivery would be told.
func (s *Sink) reason(err error) string { return pipeline.AsDeliveryError(s.classify(err)).Reason }
