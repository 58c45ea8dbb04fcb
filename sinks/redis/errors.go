package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/leat-cdc/leat/pipeline"
)

// cures are what ends a refusal, by the word that the server's answer begins with.
var cures = []struct{ word, cure string }{
	{"OOM", "raise maxmemory, or trim what was read (XTRIM)"},
	{"WRONGPASS", "correct user and password in deliver.redis.url"},
	{"NOAUTH", "give user and password in deliver.redis.url"},
	{"NOPERM", "allow the user +xadd +xinfo +xrevrange +xsetid on the streams' names"},
	{"WRONGTYPE", "the name holds something else than a stream: rename that, or change deliver.redis.stream"},
	{"MOVED", "the server is a node of a cluster: set deliver.redis.cluster: true"},
	{"CROSSSLOT", "the server is a node of a cluster: set deliver.redis.cluster: true"},
	{"This instance has cluster support disabled", "remove cluster: true from deliver.redis"},
	{"READONLY", "the server is a replica: name the primary in deliver.redis.url"},
	{"MISCONF", "Redis cannot save to its disk: see its log"},
	{"NOREPLICAS", "fewer replicas answer than min-replicas-to-write asks for"},
}

// classify makes a DeliveryError of what keeps a Delivery from its streams: it is always about the server, or a whole
// stream, so that no attempt is spent.
func (s *Sink) classify(err error) error {
	var whole *pipeline.DeliveryError
	var answer redis.Error
	var netErr net.Error
	switch {
	case errors.As(err, &whole):
		return whole
	case errors.Is(err, redis.ErrClosed) && s.ctx.Err() != nil:
		return pipeline.ErrClosed
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("redis: %w", err)
	case errors.As(err, &answer):
		text := s.short(err)
		for _, c := range cures {
			if redis.HasErrorPrefix(err, c.word) {
				text += ": " + c.cure
			}
		}
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, Congested: redis.HasErrorPrefix(err, "OOM"), Reason: text}
	case errors.As(err, &netErr) && netErr.Timeout():
		return &pipeline.DeliveryError{Class: pipeline.Unavailable, TimedOut: true, Reason: "Redis does not answer: " + s.short(err)}
	}
	return &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: "Redis cannot be reached: " + s.short(err)}
}

// short is an error's text without the password, and bounded.
func (s *Sink) short(err error) string {
	text := err.Error()
	if u, _, _, bad := parse(s.o.URL); bad == nil {
		if p, _ := u.User.Password(); p != "" {
			text = strings.ReplaceAll(text, p, "***")
		}
	}
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}
