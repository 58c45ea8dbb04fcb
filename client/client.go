// Package client takes changes from a Leat server: as a stream under leases ([Client.Pull], [Client.Handle]), or page by
// page from a place of one's own in the log ([Client.Follow]).
//
// Events come at least once and in order per key: write a receiver that may see an event twice, for example by keeping
// with each row the Offset that wrote it, and ignoring what is not higher.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/frames"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// Options of a client. The zero value serves.
type Options struct {
	// Token of a role `subscribe:NAME`, sent with each request; empty where the server asks for none.
	Token string
	// TLS for https URLs: authorities, client certificates. Nil is Go's default.
	TLS *tls.Config
	// Consumer is the client's name, for people: `leat status` shows it.
	Consumer string
	// Window is how many events may be under way (sent and not acked) on a stream. Default 10,000.
	Window int
	// WindowBytes bounds the same in bytes; an event larger than what is left comes alone. Default 16 MiB.
	WindowBytes int64
	// Hold is how long a batch's lease is extended while nobody completes any of it. Default 15 minutes; then its events
	// go to another client, or here again.
	Hold time.Duration
	// OnResolved is told that everything below offset was completed, or is listed as dead-lettered or skipped: a copy is
	// consistent as of t. It must not block. Needs `resolved:` in the subscription.
	OnResolved func(offset uint64, t time.Time)
	// OnRetry is told why a lost stream is opened again, and when. It must not block.
	OnRetry func(err error, in time.Duration)
}

// Client of one server. Methods may be called at once.
type Client struct {
	o       Options
	pull    leatv1connect.SubscriberServiceClient // leaves events for shapes to decode
	api     leatv1connect.SubscriberServiceClient
	http    *http.Client
	backoff func(n int) time.Duration
}

// New returns a client of the server at addr, like http://127.0.0.1:7070. It connects when it is used.
func New(addr string, o Options) (*Client, error) {
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return nil, fmt.Errorf("leat: the server's URL is to be http://HOST:PORT or https://HOST:PORT; a token belongs into Options")
	}
	if o.Token != "" && u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("leat: a token is not sent over http:// to %s, where others can read it: use https://", u.Host)
	}
	if o.Window <= 0 {
		o.Window = 10_000
	}
	if o.WindowBytes <= 0 {
		o.WindowBytes = 16 << 20
	}
	if o.Hold <= 0 {
		o.Hold = 15 * time.Minute
	}
	t := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: o.TLS, Proxy: http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
		HTTP2: &http.HTTP2Config{
			MaxReadFrameSize: 1 << 20,                                         // few large frames instead of many of 16 KB
			SendPingTimeout:  15 * time.Second, PingTimeout: 10 * time.Second, // a server that is gone without a word
		}}
	t.Protocols.SetHTTP2(true)
	t.Protocols.SetUnencryptedHTTP2(true) // streams in both directions need HTTP/2, on http:// too
	h := &http.Client{Transport: t}
	addr, with := strings.TrimSuffix(addr, "/"), connect.WithClientOptions(connect.WithAcceptCompression("gzip", nil, nil), connect.WithInterceptors(bearer(o.Token)))
	return &Client{o: o, http: h, backoff: backoff,
		pull: leatv1connect.NewSubscriberServiceClient(h, addr, with, connect.WithCodec(frames.Codec{})),
		api:  leatv1connect.NewSubscriberServiceClient(h, addr, with)}, nil
}

// Close closes connections that nothing uses. Streams are ended by their contexts.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// backoff before the n-th try in a row, from 0.
func backoff(n int) time.Duration {
	d := min(100*time.Millisecond<<min(n, 10), 10*time.Second)
	return d/2 + rand.N(d/2) // a hundred clients do not come back at once
}

// permanent says whether to try again is useless.
func permanent(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeInvalidArgument, connect.CodeNotFound,
		connect.CodeUnimplemented, connect.CodeFailedPrecondition, connect.CodeOutOfRange:
		return true
	}
	return false
}

// IsNotFound reports that the server has no subscription of that name, or not of the kind pull.
func IsNotFound(err error) bool { return connect.CodeOf(err) == connect.CodeNotFound }

// IsTooOld reports that a place is older than what the log keeps: begin anew with a snapshot.
func IsTooOld(err error) bool { return connect.CodeOf(err) == connect.CodeOutOfRange }

// bearer puts the token into each request.
type bearer string

func (b bearer) set(h http.Header) {
	if b != "" {
		h.Set("Authorization", "Bearer "+string(b))
	}
}

// WrapUnary implements connect.Interceptor.
func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		b.set(req.Header())
		return next(ctx, req)
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		b.set(conn.RequestHeader())
		return conn
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (b bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// wait sleeps for d, unless ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// ErrLost is what completing a batch returns whose stream is gone, or whose lease has ended: its events come again, here
// or at another client.
var ErrLost = errors.New("leat: the batch's lease is lost, its events come again")
