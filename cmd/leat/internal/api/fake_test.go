package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend stands for the app: it answers from its fields.
type backend struct {
	mu     sync.Mutex
	actors []string
	err    error
	ready  []string
	events func(ctx context.Context, r EventsRequest, send func([]Event) error) error
	tail   func(ctx context.Context, send func([][]byte) error) error
	panics bool
	// audited lines: actor action target arguments: outcome
	audited []string
}

func (b *backend) call(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.actors = append(b.actors, Actor(ctx))
	if b.panics {
		panic("whsec_c2VjcmV0")
	}
	return b.err
}

func (b *backend) Status(ctx context.Context, name string) (*leatv1.StatusResponse, error) {
	return &leatv1.StatusResponse{Version: "v0 " + name}, b.call(ctx)
}
func (b *backend) Plan(ctx context.Context, _ *leatv1.PlanRequest) (*leatv1.PlanResponse, error) {
	return &leatv1.PlanResponse{}, b.call(ctx)
}
func (b *backend) Apply(ctx context.Context, _ *leatv1.ApplyRequest) (*leatv1.ApplyResponse, error) {
	return &leatv1.ApplyResponse{}, b.call(ctx)
}
func (b *backend) Pause(ctx context.Context, _ *leatv1.PauseRequest) error {
	Note(ctx, "noted ")
	return b.call(ctx)
}
func (b *backend) Resume(ctx context.Context, _ *leatv1.ResumeRequest) error {
	return b.call(ctx)
}
func (b *backend) Seek(ctx context.Context, _ *leatv1.SeekRequest) (*leatv1.SeekResponse, error) {
	return &leatv1.SeekResponse{}, b.call(ctx)
}
func (b *backend) Parked(ctx context.Context, _ *leatv1.ParkedRequest) (*leatv1.ParkedResponse, error) {
	return &leatv1.ParkedResponse{}, b.call(ctx)
}
func (b *backend) RemoveSource(ctx context.Context, _ *leatv1.RemoveSourceRequest) (*leatv1.RemoveSourceResponse, error) {
	return &leatv1.RemoveSourceResponse{}, b.call(ctx)
}
func (b *backend) Throttle(ctx context.Context, _ *leatv1.ThrottleRequest) (*leatv1.ThrottleResponse, error) {
	return &leatv1.ThrottleResponse{}, b.call(ctx)
}
func (b *backend) Redrive(ctx context.Context, _ *leatv1.RedriveRequest) (*leatv1.RedriveResponse, error) {
	return &leatv1.RedriveResponse{}, b.call(ctx)
}
func (b *backend) Discard(ctx context.Context, _ *leatv1.DiscardRequest) (*leatv1.DiscardResponse, error) {
	return &leatv1.DiscardResponse{}, b.call(ctx)
}
func (b *backend) Explain(ctx context.Context, _ *leatv1.ExplainRequest) (*leatv1.ExplainResponse, error) {
	return &leatv1.ExplainResponse{}, b.call(ctx)
}
func (b *backend) AuditLog(ctx context.Context, _ *leatv1.AuditLogRequest) (*leatv1.AuditLogResponse, error) {
	return &leatv1.AuditLogResponse{}, b.call(ctx)
}
func (b *backend) Audit(ctx context.Context, c Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.audited = append(b.audited, fmt.Sprint(Actor(ctx), " ", c.Action, " ", c.Target, " ", c.Arguments, ": ", c.Detail, c.Err, " ", c.Refused))
}
func (b *backend) Tail(ctx context.Context, _ *leatv1.TailRequest, send func([][]byte) error) error {
	if err := b.call(ctx); err != nil || b.tail == nil {
		return err
	}
	return b.tail(ctx, send)
}
func (b *backend) Events(ctx context.Context, r EventsRequest, send func([]Event) error) error {
	if b.events == nil {
		return b.call(ctx)
	}
	return b.events(ctx, r, send)
}
func (b *backend) Ready() (bool, []string) { return len(b.ready) == 0, b.ready }
func (b *backend) Schema(source, table string, version uint32) (*schemas.Table, bool) {
	t := filesTable()
	return t, source == "files" && table == t.Subject() && version == 3
}

func (b *backend) Types(ctx context.Context, subscription string) (string, error) {
	return "types of " + subscription + "\n", b.call(ctx)
}

func filesTable() *schemas.Table {
	t := &schemas.Table{Version: 3, Schema: "public", Name: "fi.les ü", Identity: []int{0}, Routing: []int{1}, Columns: []schemas.Column{
		{Name: "id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 64, Name: "bigint"}},
		{Name: "namespace_id", Type: schemas.Type{Kind: schemas.KindInt, Bits: 32, Name: "integer"}},
		{Name: "path", Type: schemas.Type{Kind: schemas.KindText, Name: "text"}, Nullable: true},
		{Name: "body", Type: schemas.Type{Kind: schemas.KindBytes, Name: "bytea"}, Nullable: true},
		{Name: "password", Type: schemas.Type{Kind: schemas.KindText, Name: "text"}, Dropped: true},
		{Name: "tags", Type: schemas.Type{Kind: schemas.KindArray, Elem: &schemas.Type{Kind: schemas.KindText}, Name: "text[]"}},
	}}
	return t.Seal()
}

// subscriber answers the SubscriberService: whatever is let through.
type subscriber struct {
	leatv1connect.UnimplementedSubscriberServiceHandler
	flood   *leatv1.PullResponse // sent without end after the Start
	waiting chan struct{}
}

func (s *subscriber) Pull(ctx context.Context, st *connect.BidiStream[leatv1.PullRequest, leatv1.PullResponse]) error {
	for {
		m, err := st.Receive()
		if err != nil {
			return nil // the client is done
		}
		for err == nil && s.flood != nil {
			err = st.Send(s.flood)
		}
		if err := st.Send(&leatv1.PullResponse{}); err != nil {
			return err
		}
		if m.GetCredit() != nil && s.waiting != nil {
			s.waiting <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
	}
}
func (s *subscriber) Receive(context.Context, *connect.Request[leatv1.ReceiveRequest]) (*connect.Response[leatv1.ReceiveResponse], error) {
	return connect.NewResponse(&leatv1.ReceiveResponse{}), nil
}
func (s *subscriber) Ack(context.Context, *connect.Request[leatv1.AckRequest]) (*connect.Response[leatv1.AckResponse], error) {
	return connect.NewResponse(&leatv1.AckResponse{}), nil
}
func (s *subscriber) Fetch(context.Context, *connect.Request[leatv1.FetchRequest]) (*connect.Response[leatv1.FetchResponse], error) {
	return connect.NewResponse(&leatv1.FetchResponse{}), nil
}
func (s *subscriber) Extend(context.Context, *connect.Request[leatv1.ExtendRequest]) (*connect.Response[leatv1.ExtendResponse], error) {
	return connect.NewResponse(&leatv1.ExtendResponse{}), nil
}

func token(name string, roles ...string) Token {
	h := sha256.Sum256([]byte("the token of " + name))
	return Token{Name: name, SHA256: hex.EncodeToString(h[:]), Roles: roles}
}

// served is a running server with clients.
type served struct {
	t    testing.TB
	s    *Server
	addr string
	url  string
	stop func() error
}

func serve(t testing.TB, o Options, sub *subscriber) *served {
	t.Helper()
	if o.Backend == nil {
		o.Backend = &backend{}
	}
	if sub == nil {
		sub = &subscriber{}
	}
	o.Subscriber = func(opts ...connect.HandlerOption) (string, http.Handler) {
		return leatv1connect.NewSubscriberServiceHandler(sub, opts...)
	}
	if o.Metrics == nil {
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "leat_up 1") })
	}
	if o.Grace == 0 {
		o.Grace = 5 * time.Second
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	x := &served{t: t, s: s, addr: l.Addr().String()}
	x.url = "http://" + x.addr
	x.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := x.stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return x
}

// client speaks HTTP/1.1, or HTTP/2 without TLS, and adds a token.
func (x *served) client(h2 bool, token string) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetUnencryptedHTTP2(h2)
	x.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: bearer{tr, token}}
}

type bearer struct {
	next  http.RoundTripper
	token string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

func code(err error) connect.Code {
	if err == nil {
		return 0
	}
	var c *connect.Error
	if errors.As(err, &c) {
		return c.Code()
	}
	return connect.CodeUnknown
}

func (b *backend) Ranges(ctx context.Context, _ *leatv1.RangesRequest) (*leatv1.RangesResponse, error) {
	return &leatv1.RangesResponse{}, b.call(ctx)
}

func (b *backend) SplitRange(ctx context.Context, _ *leatv1.SplitRangeRequest) (*leatv1.SplitRangeResponse, error) {
	return &leatv1.SplitRangeResponse{}, b.call(ctx)
}

func (b *backend) MergeRanges(ctx context.Context, _ *leatv1.MergeRangesRequest) (*leatv1.MergeRangesResponse, error) {
	return &leatv1.MergeRangesResponse{}, b.call(ctx)
}

func (b *backend) Replay(ctx context.Context, _ *leatv1.ReplayRequest) (*leatv1.ReplayResponse, error) {
	return &leatv1.ReplayResponse{}, b.call(ctx)
}

func (b *backend) Jobs(ctx context.Context, _ *leatv1.JobsRequest) (*leatv1.JobsResponse, error) {
	return &leatv1.JobsResponse{}, b.call(ctx)
}

func (b *backend) PauseJob(ctx context.Context, _ *leatv1.PauseJobRequest) (*leatv1.PauseJobResponse, error) {
	return &leatv1.PauseJobResponse{}, b.call(ctx)
}

func (b *backend) ResumeJob(ctx context.Context, _ *leatv1.ResumeJobRequest) (*leatv1.ResumeJobResponse, error) {
	return &leatv1.ResumeJobResponse{}, b.call(ctx)
}

func (b *backend) Backfill(ctx context.Context, _ *leatv1.BackfillRequest) (*leatv1.BackfillResponse, error) {
	return &leatv1.BackfillResponse{}, b.call(ctx)
}

func (b *backend) Verify(ctx context.Context, _ *leatv1.VerifyRequest, _ func(*leatv1.VerifyResponse) error) error {
	return b.call(ctx)
}

func (b *backend) CancelJob(ctx context.Context, _ *leatv1.CancelJobRequest) (*leatv1.CancelJobResponse, error) {
	return &leatv1.CancelJobResponse{}, b.call(ctx)
}
