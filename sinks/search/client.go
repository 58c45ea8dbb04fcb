package search

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/pipeline"
)

// client speaks to one cluster.
type client struct {
	base    *url.URL
	user    *url.Userinfo
	key     string
	timeout time.Duration
	http    *http.Client

	mu     sync.Mutex // holds back close while asked grows
	asked  sync.WaitGroup
	ended  context.Context
	cancel context.CancelFunc
}

// close ends what is being asked, and what would be asked later: rebuilds are looked after as long as the API answers,
// and a request after the end would leave its connection open.
func (c *client) close() {
	c.mu.Lock()
	c.cancel()
	c.mu.Unlock()
	c.asked.Wait()
	c.http.CloseIdleConnections()
}

// begin a request, unless the client is closed; done ends it.
func (c *client) begin(ctx context.Context) (_ context.Context, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Err() != nil {
		return nil, nil, pipeline.ErrClosed
	}
	c.asked.Add(1)
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	stop := context.AfterFunc(c.ended, cancel)
	return ctx, func() { stop(); cancel(); c.asked.Done() }, nil
}

// most bytes of an answer that are read.
const mostAnswer = 64 << 20

func newClient(o Options) (*client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("url: want https://HOST:PORT, with user and password where it wants them")
	}
	c := &client{user: u.User, key: o.APIKey, timeout: o.Timeout}
	c.ended, c.cancel = context.WithCancel(context.Background())
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	u.Path = strings.TrimSuffix(u.Path, "/")
	c.base = u
	if c.timeout <= 0 {
		c.timeout = 30 * time.Second
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, TLSClientConfig: o.TLS, Proxy: http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

// answerError is an answer that is no success.
type answerError struct {
	status int
	// kind is the type of the error as the server names it.
	kind, reason string
	after        time.Duration
}

func (e *answerError) Error() string {
	text := fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	if e.kind != "" {
		text += ": " + e.kind
	}
	if e.reason != "" {
		text += ": " + shorten(e.reason)
	}
	return text
}

// is reports whether err is an answer of that kind.
func is(err error, kind string) bool {
	var a *answerError
	return errors.As(err, &a) && a.kind == kind
}

// status of an answer, 0 when err is none.
func status(err error) int {
	var a *answerError
	if errors.As(err, &a) {
		return a.status
	}
	return 0
}

// ask makes a request; into, when not nil, takes the answer. Errors are *pipeline.DeliveryError, and wrap an
// *answerError where there was an answer; pipeline.ErrClosed after close.
func (c *client) ask(ctx context.Context, method, path string, body []byte, into any) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("search: %w", err)
	}
	// What is sent twice does no harm: on a connection that was closed meanwhile it is sent again on another.
	req.Header["Idempotency-Key"] = []string{}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		if strings.Contains(path, "_bulk") {
			req.Header.Set("Content-Type", "application/x-ndjson")
		}
	}
	switch {
	case c.key != "":
		req.Header.Set("Authorization", "ApiKey "+c.key)
	case c.user != nil:
		password, _ := c.user.Password()
		req.SetBasicAuth(c.user.Username(), password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return unanswered(err, c.timeout)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	if err != nil {
		return unanswered(err, c.timeout)
	}
	if len(text) > mostAnswer {
		return &pipeline.DeliveryError{Class: pipeline.TooLarge, Reason: fmt.Sprintf("search: the answer is longer than %d MiB", mostAnswer>>20)}
	}
	if resp.StatusCode > 299 {
		return refused(answered(resp, text))
	}
	if into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			return &pipeline.DeliveryError{Reason: "the answer of the search server cannot be read: is it one?", Err: err}
		}
	}
	return nil
}

// answered reads an error of the server.
func answered(resp *http.Response, text []byte) *answerError {
	e := &answerError{status: resp.StatusCode}
	var body struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(text, &body) == nil {
		var cause cause
		if json.Unmarshal(body.Error, &cause) == nil {
			e.kind, e.reason = cause.Type, withoutValues(cause.text())
		} else {
			_ = json.Unmarshal(body.Error, &e.reason) // older servers say it as text; empty is fine
		}
	}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		e.after = min(time.Duration(n)*time.Second, 15*time.Minute)
	}
	return e
}

// cause of an error, as the server names it.
type cause struct {
	Type     string `json:"type"`
	Reason   string `json:"reason"`
	CausedBy *cause `json:"caused_by"`
}

func (c *cause) text() string {
	if c.CausedBy != nil && c.CausedBy.Reason != "" {
		return c.Reason + ": " + c.CausedBy.text()
	}
	return c.Reason
}

// document is what the error of a document says: its type, the place, and the type of what caused it. The servers quote
// the row's own values in the rest.
func (c *cause) document() string {
	text := c.Type + ": " + shorten(withoutValues(c.Reason))
	if c.CausedBy != nil && c.CausedBy.Type != "" {
		text += " (" + c.CausedBy.Type + ")"
	}
	return text
}

// withoutValues cuts an error where a server quotes what it was sent.
func withoutValues(reason string) string {
	for _, quote := range []string{" in document with id", "Preview of field's value", "The prefix of the first immense term", "For input string", "[Source:", "'"} {
		reason, _, _ = strings.Cut(reason, quote)
	}
	return strings.TrimRight(reason, " .:")
}

// refused says what an answer to a whole request means.
func refused(a *answerError) error {
	out := &pipeline.DeliveryError{Class: pipeline.Unavailable, Reason: a.Error(), RetryAfter: a.after, Err: a}
	switch {
	case a.status == http.StatusRequestEntityTooLarge:
		out.Class = pipeline.TooLarge
	case a.status == http.StatusTooManyRequests:
		out.Congested = true
	case a.status == http.StatusBadRequest, a.status == http.StatusInternalServerError:
		out.Class = pipeline.Retriable
	}
	return out
}

// unanswered says what a request without an answer means.
func unanswered(err error, timeout time.Duration) error {
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var timed net.Error
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the url
	}
	out := &pipeline.DeliveryError{Reason: "search: " + err.Error(), Err: err}
	switch {
	case errors.As(err, &dns), errors.As(err, &cert), errors.As(err, &op) && op.Op == "dial":
		out.Class = pipeline.Unavailable
	case errors.As(err, &timed) && timed.Timeout():
		out.TimedOut, out.Reason = true, fmt.Sprintf("search: no answer within %s", timeout)
	}
	return out
}

func shorten(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
