package servers

import (
	"fmt"
	"os"
	"strconv"
)

// Variables of the environment that name a server to use instead of an own one. Its user must be a
// superuser that may create databases and replicate.
const (
	EnvPostgres   = "LEAT_TEST_POSTGRES_URL"   // DefaultPostgres; with _15, _16, _17, _18 behind it: that major version
	EnvMySQL      = "LEAT_TEST_MYSQL_URL"      // mysql://USER:PASSWORD@HOST:PORT/
	EnvMariaDB    = "LEAT_TEST_MARIADB_URL"    // the same form
	EnvOpenSearch = "LEAT_TEST_OPENSEARCH_URL" // http://HOST:PORT, or Elasticsearch
	EnvRegistry   = "LEAT_TEST_REGISTRY_URL"   // http://HOST:PORT/PATH of a schema registry, with what stands before /subjects
	EnvKafka      = "LEAT_TEST_KAFKA_URL"      // kafka://HOST:PORT, with more listeners as servers run writes them
)

// Given returns the server that the environment names for kind, nil when it names none. version is
// PostgreSQL's major version, 0 for the default; it is not used for the others. The server is not
// asked whether it is there.
func Given(kind Kind, version int) *Server {
	name := ""
	switch kind {
	case KindPostgres:
		if version == 0 {
			version = DefaultPostgres
		}
		name = EnvVersion(version)
		if os.Getenv(name) == "" && version == DefaultPostgres {
			name = EnvPostgres
		}
	case KindMySQL:
		name = EnvMySQL
	case KindMariaDB:
		name = EnvMariaDB
	case KindKafka:
		name = EnvKafka
	case KindOpenSearch:
		name = EnvOpenSearch
	case KindRegistry:
		name = EnvRegistry
	}
	url := os.Getenv(name)
	if url == "" {
		return nil
	}
	s := &Server{Kind: kind, URL: url}
	switch kind {
	case KindPostgres:
		s.Version = strconv.Itoa(version)
	case KindKafka:
		var ca string
		if s.Listeners, ca, _ = KafkaListeners(url); ca != "" {
			s.Certs = &Certs{CA: ca}
		}
	}
	return s
}

// EnvVersion is the variable that names a PostgreSQL of one major version.
func EnvVersion(major int) string { return fmt.Sprintf("%s_%d", EnvPostgres, major) }
