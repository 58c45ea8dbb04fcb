package config

import (
	"errors"
	"regexp"

	"github.com/leat-cdc/leat/cmd/leat/internal/config/yamltree"
	"github.com/leat-cdc/leat/sinks/encode/records"
	"github.com/leat-cdc/leat/sinks/nats"
)

// NATS is a stream of NATS JetStream: a message for each event, each once, in order per key.
type NATS struct {
	// nats://USER:PASSWORD@HOST:PORT of a server, or nats://TOKEN@HOST:PORT; tls:// over
	// TLS.
	URL URL `json:"url" need:"true"`
	// Other servers, HOST:PORT: any one is connected to.
	Servers []string `json:"servers" form:"nats_server"`
	// Name of the stream, which takes the subjects.
	Stream string `json:"stream" need:"true" form:"nats_stream"`
	// Make the stream where it is missing; {} for the defaults. Default: it has to be there.
	Create *NATSCreate `json:"create"`
	// Subject of a table's events: text with {source}, {schema}, {table},
	// {subscription}. Of events of no table {schema}.{table} is leat.messages.
	Subject string `json:"subject" default:"{source}.{schema}.{table}" form:"subject"`
	// Form of the events: json (CloudEvents structured) or debezium (its change event
	// as JSON without schemas).
	Encoding string `json:"encoding" default:"json" enum:"json|debezium"`
	// File of credentials (.creds): the user's JWT and seed.
	Credentials string `json:"credentials" form:"path"`
	// File with the seed of the user's nkey.
	NKey string `json:"nkey" form:"path"`
	// Whom to trust, and who we are (mutual TLS); {} for the system's authorities.
	TLS *ClientTLS `json:"tls"`
	// How long a delivery may take, 1s to 10m.
	Timeout Duration `json:"timeout" default:"30s" min:"1s" max:"10m"`
}

// NATSCreate says how a missing stream is made.
type NATSCreate struct {
	// Replicas of the stream, 1 to 5.
	Replicas int `json:"replicas" default:"1" min:"1" max:"5"`
	// How long the stream keeps messages; 0s: for ever.
	MaxAge Duration `json:"max_age" default:"0s" min:"0s" max:"87600h"`
	// How much the stream keeps; 0: all.
	MaxBytes Size `json:"max_bytes" default:"0" min:"0" max:"1024TiB"`
	// Within which time the server drops what comes again, 1s to 1d.
	Duplicates Duration `json:"duplicates" default:"2m" min:"1s" max:"24h"`
}

func checkNATSServer(s string) *yamltree.Problem {
	p := checkBroker(s)
	if p != nil {
		p = p.Fix("like nats-2:4222")
	}
	return p
}

var natsStream = regexp.MustCompile(`^[^\s.*>/\\[:cntrl:]]{1,255}$`)

func checkNATSStream(s string) *yamltree.Problem {
	if !natsStream.MatchString(s) {
		return yamltree.Wrong("is not the name of a stream").Fix("without space, ., *, >, / and \\: like CHANGES")
	}
	return nil
}

// checkSubject is of a subject with fields.
func checkSubject(s string) *yamltree.Problem {
	_, err := nats.ParseSubject(s)
	var field *records.NameFieldError
	switch {
	case errors.As(err, &field):
		return yamltree.Wrong("names a field in braces that there is not").Fix("%s (like {source}.{schema}.{table})", yamltree.DidYouMean(field.Field, records.NameFields))
	case err != nil || len(s) > 250:
		return yamltree.Wrong("is not a subject").Fix("tokens with dots between, without space, * and >, and fields in braces: like leat.{schema}.{table}")
	}
	return nil
}

// nats holds the rules over several fields.
func (c *checker) nats(path string, s *Subscription, n *NATS) {
	p := path + ".url"
	u := n.URL.Parsed()
	if u != nil && c.ok(p) {
		var wrong *nats.URLError
		if err := nats.CheckURL(n.URL.Reveal()); errors.As(err, &wrong) {
			c.fail(p, "want "+nats.URLForm, "%s: %s", p, wrong.What)
		}
	}
	who := 0
	for _, is := range []bool{u != nil && u.User != nil, n.Credentials != "", n.NKey != ""} {
		if is {
			who++
		}
	}
	if who > 1 && c.ok(p) {
		c.fail(p, "leave one of: user or token in url, credentials, nkey", "%s says twice who we are", path)
	}
	c.tlsPair(path, n.TLS)
	c.unresolved(path, s)
}
