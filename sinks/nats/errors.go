package nats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/leat-cdc/leat/pipeline"
)

// Codes of JetStream's errors, as the server's errors.json has them, that the client does not name.
const (
	codeInsufficient = 10023
	codeMemoryFull   = 10028
	codeOtherStream  = 10060
	codeOverlap      = 10065
	codeStorageFull  = 10047
	codeStoreFailed  = 10077
	codeTooMany      = 429 // an HTTP status
)

// cures are what ends a refusal, by its code.
var cures = map[jetstream.ErrorCode]string{
	codeInsufficient:                       "raise the account's limits, or those of jetstream in the server's configuration",
	codeMemoryFull:                         "raise the account's limits, or max_memory_store",
	codeStorageFull:                        "raise the account's limits, or max_file_store",
	codeStoreFailed:                        "raise the stream's limits, or have it discard the oldest (nats stream edit --discard old)",
	codeOtherStream:                        "that stream takes the subject: name it in deliver.nats.stream, or change deliver.nats.subject",
	codeOverlap:                            "another stream takes these subjects: name it in deliver.nats.stream, or change deliver.nats.subject",
	jetstream.JSErrCodeStreamNotFound:      "make it (nats stream add), correct deliver.nats.stream, or write create: {}",
	jetstream.JSErrCodeJetStreamNotEnabled: "switch jetstream on in the server's configuration",
	jetstream.JSErrCodeJetStreamNotEnabledForAccount: "switch jetstream on for the account",
}

// tooLarge reports whether the stream will never take the message.
func tooLarge(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamMessageExceedsMaximum || errors.Is(err, nats.ErrMaxPayload)
}

// cure of an error, congested when it is that the stream is full.
func (s *Sink) cure(err error) (text string, congested bool) {
	var api *jetstream.APIError
	var file *fs.PathError
	switch {
	case errors.As(err, &api):
		switch api.ErrorCode {
		case codeInsufficient, codeMemoryFull, codeStorageFull, codeStoreFailed:
			congested = true
		}
		return cures[api.ErrorCode], congested || api.Code == codeTooMany
	case errors.Is(err, nats.ErrPermissionViolation):
		return "allow the user to publish there; docs/subscribers.md lists what it needs", false
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return "correct user, password or token in deliver.nats.url, or deliver.nats.credentials or nkey", false
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Sprintf("no stream takes the subject: add it to the subjects of stream %s", s.o.Stream), false
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		return "JetStream does not answer: switch it on in the server's configuration, for this account", false
	case errors.As(err, &file):
		return "let the user that runs leat read it, or correct deliver.nats.credentials or nkey", false
	case errors.Is(err, nats.ErrSecureConnWanted):
		return "the server has no TLS: begin deliver.nats.url with nats://, without tls", false
	case errors.Is(err, jetstream.ErrTooManyStalledMsgs):
		return "the stream acknowledges slowly", true
	}
	return "", false
}

// classify makes a DeliveryError of what keeps a Delivery from the stream: it is always about the server or the whole
// stream, so that no attempt is spent.
func (s *Sink) classify(c *connection, err error) error {
	if c != nil {
		if refused := c.denied(); refused != nil {
			err = refused
		}
	}
	var netErr net.Error
	var api *jetstream.APIError
	text := s.short(err)
	cure, congested := s.cure(err)
	if cure != "" {
		text += ": " + cure
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("nats: %w", err)
	case cure != "" || errors.As(err, &api):
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, Congested: congested, Reason: text}
	case errors.Is(err, context.DeadlineExceeded):
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, TimedOut: true, Reason: "NATS did not answer in time"}
	case errors.As(err, &netErr) && netErr.Timeout():
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, TimedOut: true, Reason: "NATS does not answer: " + text}
	}
	return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "NATS cannot be reached: " + text}
}

// short is an error's text without the password, and bounded.
func (s *Sink) short(err error) string {
	text := err.Error()
	if u, bad := url.Parse(s.o.URL); bad == nil && u.User != nil {
		secret, both := u.User.Password()
		if !both {
			secret = u.User.Username()
		}
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	return text
}
