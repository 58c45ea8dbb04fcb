package registry

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
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/schemas/shape"
)

// Client speaks to a registry elsewhere: Confluent's, Apicurio's, Karapace, Redpanda's. Safe for concurrent use.
type Client struct {
	base  string
	o     ClientOptions
	http  *http.Client
	mu    sync.Mutex
	known map[place]uint32
	// versions do not change; listed are those that a subject had when it was asked last.
	versions map[versionOf]answer
	listed   map[string][]int
}

type versionOf struct {
	subject string
	number  int
}

type place struct {
	subject string
	content
}

// ClientOptions say how to reach a registry.
type ClientOptions struct {
	// URL of its API, with the path that stands before /subjects; without user and password.
	URL string
	// User and Password (basic), or Token (bearer).
	User, Password, Token string
	// Timeout of one request; 0: 10 s.
	Timeout time.Duration
	// TLS of https; nil: the system's authorities. The client's own from then on.
	TLS *tls.Config
}

// mostAnswer bounds what is read of an answer: the schema of a table with thousands of columns comes back as JSON.
const mostAnswer = 32 << 20

// NewClient returns a client, with connections of its own that Close ends. It connects to nothing yet.
func NewClient(o ClientOptions) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("the registry's url: use http://HOST:PORT/PATH or https://…")
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: o.TLS, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		DialContext: (&net.Dialer{Timeout: o.Timeout}).DialContext, TLSHandshakeTimeout: o.Timeout}
	return &Client{base: strings.TrimSuffix(o.URL, "/"), o: o, http: &http.Client{Transport: transport, CheckRedirect: stay},
		known: map[place]uint32{}, versions: map[versionOf]answer{}, listed: map[string][]int{}}, nil
}

// stay follows no redirects: a password is for the address that it was given for.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close ends the connections that nobody uses; what is being asked goes on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Register returns the id of the schema under the subject, registering it when it is new there. What it knows it
// does not ask again.
func (c *Client) Register(ctx context.Context, subject string, f shape.Format, text string) (uint32, error) {
	at := place{subject, content{f, text}}
	c.mu.Lock()
	id, ok := c.known[at]
	c.mu.Unlock()
	if ok {
		return id, nil
	}
	var got struct {
		ID uint32 `json:"id"`
	}
	q := question{Type: f, Schema: text}
	if f == shape.Avro {
		q.Type = ""
	}
	path := "/subjects/" + url.PathEscape(subject)
	err := c.call(ctx, http.MethodPost, path, q, &got) // a reader's rights are enough for what is there already
	if errors.Is(err, ErrNotFound) || err == nil && got.ID == 0 {
		err = c.call(ctx, http.MethodPost, path+"/versions", q, &got)
	}
	if err != nil {
		return 0, fmt.Errorf("register a schema of %s: %w", subject, err)
	}
	if got.ID == 0 {
		return 0, fmt.Errorf("register a schema of %s: the registry gave no id", subject)
	}
	c.mu.Lock()
	c.known[at] = got.ID
	c.mu.Unlock()
	return got.ID, nil
}

// Versions returns the texts of the subject's versions in that format, the oldest first; none when there is no such
// subject. While the registry does not answer they are those of the last time: whose schema is known goes on.
func (c *Client) Versions(ctx context.Context, subject string, f shape.Format) ([]string, error) {
	numbers, err := c.list(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("list the versions of %s: %w", subject, err)
	}
	var texts []string
	for _, n := range numbers {
		a, err := c.version(ctx, subject, n)
		if err != nil {
			return nil, fmt.Errorf("read version %d of %s: %w", n, subject, err)
		}
		if a.Type == f || a.Type == "" && f == shape.Avro {
			texts = append(texts, a.Schema)
		}
	}
	return texts, nil
}

// list returns the numbers of a subject's versions.
func (c *Client) list(ctx context.Context, subject string) ([]int, error) {
	var numbers []int
	err := c.call(ctx, http.MethodGet, "/subjects/"+url.PathEscape(subject)+"/versions", nil, &numbers)
	if errors.Is(err, ErrNotFound) {
		numbers, err = nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.listed[subject] = numbers
	} else if was, ok := c.listed[subject]; ok {
		return was, nil
	}
	return numbers, err
}

// version reads one, once.
func (c *Client) version(ctx context.Context, subject string, n int) (a answer, err error) {
	at := versionOf{subject, n}
	c.mu.Lock()
	a, ok := c.versions[at]
	c.mu.Unlock()
	if ok {
		return a, nil
	}
	if err = c.call(ctx, http.MethodGet, fmt.Sprintf("/subjects/%s/versions/%d", url.PathEscape(subject), n), nil, &a); err != nil {
		return a, err
	}
	c.mu.Lock()
	c.versions[at] = a
	c.mu.Unlock()
	return a, nil
}

// Ping asks whether the registry is there and lets us in.
func (c *Client) Ping(ctx context.Context) error {
	var names []string
	return c.call(ctx, http.MethodGet, "/subjects", nil, &names)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		p, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(p)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", contentType)
	if in != nil {
		r.Header.Set("Content-Type", contentType)
	}
	switch {
	case c.o.Token != "":
		r.Header.Set("Authorization", "Bearer "+c.o.Token)
	case c.o.User != "" || c.o.Password != "":
		r.SetBasicAuth(c.o.User, c.o.Password)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its text would repeat the address
		}
		return fmt.Errorf("the registry at %s cannot be reached: %w", r.URL.Host, err)
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	if err != nil {
		return fmt.Errorf("the registry at %s: %w", r.URL.Host, err)
	}
	if len(p) > mostAnswer {
		return fmt.Errorf("the registry at %s answered more than %d MiB", r.URL.Host, mostAnswer>>20)
	}
	if resp.StatusCode/100 == 2 {
		if err := json.Unmarshal(p, out); err != nil {
			return fmt.Errorf("the registry at %s gave an answer that is not as its API says: %w", r.URL.Host, err)
		}
		return nil
	}
	return refused(r.URL.Host, resp.StatusCode, p)
}

// refused turns an answer that is an error into one.
func refused(host string, status int, p []byte) error {
	var e struct {
		Code    int    `json:"error_code"`
		Message string `json:"message"`
	}
	_ = json.Unmarshal(p, &e) // else the status says it
	if len(e.Message) > 500 {
		e.Message = e.Message[:500] + "…"
	}
	switch status {
	case http.StatusNotFound:
		if e.Code/100 != http.StatusNotFound { // Confluent's codes have two digits more
			return fmt.Errorf("%w: the registry at %s knows no such path: check registry.url, with what stands before /subjects", ErrNotFound, host)
		}
		return fmt.Errorf("%w: the registry at %s: %s", ErrNotFound, host, e.Message)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("the registry at %s refuses us (%d): check user and password, or token, and their rights", host, status)
	case http.StatusConflict:
		return fmt.Errorf("the registry at %s finds the schema incompatible with the subject's: %s", host, e.Message)
	}
	if status/100 == 3 {
		return fmt.Errorf("the registry at %s answered %d: redirects are not followed, give the address they lead to as registry.url", host, status)
	}
	return fmt.Errorf("the registry at %s answered %d: %s", host, status, e.Message)
}
