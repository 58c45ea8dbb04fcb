package servers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// Apicurio, as its last version that runs on Java 17.
const (
	registryVersion = "3.0.9"
	registrySum     = "2b28181501a20cbf6efcd77f9b7153908fc01f3d3a7c32024c0bd9e1b04c8a43"
)

// Registry starts a schema registry, Apicurio, and returns when it answers. Server.URL is that of its API as Confluent
// has it. It needs Java 17, as Kafka does. The first start downloads it (109 MB) from Maven Central into the cache;
// LEAT_MAVEN_URL names a mirror. say is told about what takes long; may be nil.
func Registry(ctx context.Context, say func(string)) (*Server, error) {
	java, err := findJava(ctx, javaWanted, say)
	if err != nil {
		return nil, err
	}
	home, err := process.Cached(ctx, "apicurio-registry-"+registryVersion, func(dir string) error {
		tell(say, "downloading Apicurio Registry %s (109 MB), once, into %s", registryVersion, filepath.Dir(dir))
		name := "apicurio-registry-app-" + registryVersion + "-all.tar.gz"
		archive := filepath.Join(dir, name)
		if err := fetchJars(ctx, fmt.Sprintf("%s io/apicurio/apicurio-registry-app/%s/%s\n", registrySum, registryVersion, name), dir); err != nil {
			return fmt.Errorf("%w: Apicurio comes from Maven Central: check the network and HTTPS_PROXY, name a mirror by LEAT_MAVEN_URL, or a registry of your own by %s", err, EnvRegistry)
		}
		return errors.Join(untar(archive, dir, 0, "meta/"), os.Remove(archive), process.OpenTree(dir))
	})
	if err != nil {
		return nil, err
	}
	template, err := process.Cached(ctx, "apicurio-registry-"+registryVersion+"-data-"+strconv.Itoa(os.Geteuid()), func(dir string) error {
		return os.Mkdir(filepath.Join(dir, "data"), 0o700)
	})
	if err != nil {
		return nil, err
	}
	s, err := newServer(KindRegistry, template, nil)
	if err != nil {
		return nil, err
	}
	s.Version = registryVersion
	s.tmpl = process.Launch{Clean: process.SignalTerm, Quick: os.Kill, Death: os.Kill}
	err = s.firstStart(ctx, func(port int) {
		s.URL = fmt.Sprintf("http://127.0.0.1:%d/apis/ccompat/v7", port)
		s.tmpl.Args = []string{java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
			"-Dquarkus.http.host=127.0.0.1", fmt.Sprintf("-Dquarkus.http.port=%d", port), "-Dapicurio.datasource.url=jdbc:h2:file:" + filepath.Join(s.DataDir, "registry"),
			"-jar", filepath.Join(home, "apicurio-registry-app-"+registryVersion+"-runner.jar")}
	})
	if err != nil {
		return s.fail(err)
	}
	return s, nil
}

// pingRegistry says whether the registry answers.
func pingRegistry(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/subjects", nil)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}
