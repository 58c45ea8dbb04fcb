package servers

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/leat-cdc/leat/internal/servers/process"
)

const (
	debeziumVersion = "3.6.0.Final"
	debeziumSum     = "901ce7b0b75b4dafaac4aa57dac6dfcad5937f96fb7159e25d22759bbf5192e4"
	debeziumJava    = 21
)

// Debezium returns what runs Debezium Server in a folder whose config/application.properties the caller writes:
// for bench-peers. The first use downloads it (780 MB) from Maven Central, see Kafka; it needs Java 21.
// heap is the JVM's, like "2g"; port that of its health and metrics.
func Debezium(ctx context.Context, say func(string), dir, heap string, port int) (*exec.Cmd, error) {
	java, err := findJava(ctx, debeziumJava, say)
	if err != nil {
		return nil, err
	}
	home, err := process.Cached(ctx, "debezium-server-"+debeziumVersion, func(to string) error {
		tell(say, "downloading Debezium Server %s (780 MB), once, into %s", debeziumVersion, filepath.Dir(to))
		name := "debezium-server-dist-" + debeziumVersion + ".tar.gz"
		archive := filepath.Join(to, name)
		list := fmt.Sprintf("%s io/debezium/debezium-server-dist/%s/%s\n", debeziumSum, debeziumVersion, name)
		if err := fetchJars(ctx, list, to); err != nil {
			return fmt.Errorf("%w: Debezium Server comes from Maven Central: check the network and HTTPS_PROXY, or name a mirror by LEAT_MAVEN_URL", err)
		}
		return errors.Join(untar(archive, to, 1, "connectors/"), os.Remove(archive), process.OpenTree(to))
	})
	if err != nil {
		return nil, err
	}
	runner, err := filepath.Glob(filepath.Join(home, "debezium-server-*-runner.jar"))
	if err != nil || len(runner) != 1 {
		return nil, errors.Join(fmt.Errorf("find Debezium's runner in %s: remove that folder to unpack it again", home), err)
	}
	cmd := exec.CommandContext(ctx, java, "-Xms"+heap, "-Xmx"+heap, fmt.Sprintf("-Dquarkus.http.port=%d", port), "-Dquarkus.http.host=127.0.0.1", "-Dquarkus.log.console.json.enabled=false",
		"-cp", strings.Join([]string{runner[0], filepath.Join(dir, "config"), filepath.Join(home, "lib", "*")}, ":"), "io.debezium.server.Main")
	cmd.Dir = dir
	return cmd, nil
}

// untar unpacks a .tar.gz without its first folders, that many, and without what stands below skip.
func untar(archive, dir string, folders int, skip string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(archive), err)
		}
		name := strings.TrimPrefix(h.Name, "./")
		for range folders {
			_, name, _ = strings.Cut(name, "/")
		}
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) || strings.HasPrefix(name, skip) {
			continue
		}
		if err := untarFile(t, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
}

func untarFile(from io.Reader, to string) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, from)
	return err
}
