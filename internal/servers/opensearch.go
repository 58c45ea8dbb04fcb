package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// OpenSearchOptions says what kind of OpenSearch to start.
type OpenSearchOptions struct {
	// Heap of the JVM; default 384m.
	Heap string
	// Say is told about what takes long (downloads); may be nil.
	Say func(string)
}

// The distribution that OpenSearch's own integration tests use: the server without security, _reindex and
// _delete_by_query. Not 3.x, which needs Java 21.
const (
	openSearchVersion = "2.19.6"
	openSearchFile    = "71d6d8b1c637f3faecda0752b184b1cc526fc6eaad59ec1408c6327bb00b9293 org/opensearch/distribution/integ-test-zip/opensearch/" +
		openSearchVersion + "/opensearch-" + openSearchVersion + ".zip"
)

// OpenSearch starts an OpenSearch of one node and returns when it answers. It needs Java 17, as Kafka does. The first
// start downloads it (56 MB) from Maven Central into the cache; LEAT_MAVEN_URL names a mirror.
func OpenSearch(ctx context.Context, o OpenSearchOptions) (*Server, error) {
	java, err := findJava(ctx, javaWanted, o.Say)
	if err != nil {
		return nil, err
	}
	home, err := openSearchPrograms(ctx, o.Say)
	if err != nil {
		return nil, err
	}
	as := process.Unprivileged() // it refuses to be root
	template, err := process.Cached(ctx, "opensearch-"+openSearchVersion+"-data-"+strconv.Itoa(os.Geteuid()), func(dir string) error {
		return os.Mkdir(filepath.Join(dir, "data"), 0o700)
	})
	if err != nil {
		return nil, err
	}
	s, err := newServer(KindOpenSearch, template, as)
	if err != nil {
		return nil, err
	}
	if o.Heap == "" {
		o.Heap = "384m"
	}
	config, work := filepath.Join(s.Dir, "config"), filepath.Join(s.Dir, "work")
	log4j, err := os.ReadFile(filepath.Join(home, "config", "log4j2.properties"))
	for _, dir := range []string{config, work} {
		err = errors.Join(err, os.MkdirAll(dir, 0o755), process.Chown(dir, as))
	}
	err = errors.Join(err, process.Open(s.Dir, as), os.WriteFile(filepath.Join(config, "log4j2.properties"), log4j, 0o644))
	if err != nil {
		return s.fail(fmt.Errorf("prepare OpenSearch: %w", err))
	}
	s.Version = openSearchVersion
	s.tmpl = process.Launch{As: as, Clean: process.SignalTerm, Quick: os.Kill, Death: os.Kill, Args: []string{java,
		"-Xms64m", "-Xmx" + o.Heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.io.tmpdir=" + work, "-Djava.security.manager=allow",
		"-Dfile.encoding=UTF-8", "-Djna.nosys=true", "-Dlog4j.shutdownHookEnabled=false", "-Dlog4j2.disable.jmx=true", "-Dio.netty.noUnsafe=true",
		"-Dopensearch.path.home=" + home, "-Dopensearch.path.conf=" + config, "-Dopensearch.distribution.type=zip", "-Dopensearch.bundled_jdk=false",
		"-cp", filepath.Join(home, "lib", "*"), "org.opensearch.bootstrap.OpenSearch"}}
	err = s.firstStart(ctx, func(port int) {
		s.URL = fmt.Sprintf("http://127.0.0.1:%d", port)
		lines := fmt.Sprintf("cluster.name: leat\nnode.name: n1\ndiscovery.type: single-node\nnetwork.host: 127.0.0.1\nhttp.port: %d\ntransport.port: 0\npath.data: %s\npath.logs: %s\n"+
			"cluster.routing.allocation.disk.threshold_enabled: false\n", port, s.DataDir, work)
		if err = os.WriteFile(filepath.Join(config, "opensearch.yml"), []byte(lines), 0o644); err != nil {
			s.tmpl.Args = []string{"false"} // the start says the rest
		}
	})
	if err != nil {
		return s.fail(err)
	}
	return s, nil
}

func openSearchPrograms(ctx context.Context, say func(string)) (string, error) {
	dir, err := process.Cached(ctx, "opensearch-"+openSearchVersion, func(dir string) error {
		tell(say, "downloading OpenSearch %s (56 MB), once, into %s", openSearchVersion, filepath.Dir(dir))
		if err := fetchJars(ctx, openSearchFile, dir); err != nil {
			return fmt.Errorf("%w: OpenSearch comes from Maven Central: check the network and HTTPS_PROXY, name a mirror by LEAT_MAVEN_URL, or an OpenSearch of your own by %s", err, EnvOpenSearch)
		}
		archive := filepath.Join(dir, "opensearch-"+openSearchVersion+".zip")
		if err := errors.Join(unzip(archive, dir), os.Remove(archive)); err != nil {
			return err
		}
		for _, empty := range []string{"plugins", "modules"} {
			if err := os.MkdirAll(filepath.Join(dir, "opensearch-"+openSearchVersion, empty), 0o755); err != nil {
				return err
			}
		}
		return process.OpenTree(dir)
	})
	return filepath.Join(dir, "opensearch-"+openSearchVersion), err
}

// pingOpenSearch says whether the node has its data.
func pingOpenSearch(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/_cluster/health?wait_for_status=yellow&timeout=1s", nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
