package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// TestEveryProcedureIsARoute: a procedure added to a proto is not served until somebody said who may call it.
func TestEveryProcedureIsARoute(t *testing.T) {
	want := []string{reflectV1, reflectV1Alpha}
	for _, f := range []protoreflect.FileDescriptor{leatv1.File_leat_v1_admin_proto, leatv1.File_leat_v1_subscriber_proto} {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				p := fmt.Sprintf("/%s/%s", s.FullName(), m.Name())
				want = append(want, p)
				i := slices.IndexFunc(routes, func(r route) bool { return r.path == p })
				if i >= 0 && (m.IsStreamingClient() || m.IsStreamingServer()) && routes[i].shape == single {
					t.Errorf("%s streams, its route says that it does not", p)
				}
			}
		}
	}
	var got []string
	for _, r := range routes {
		if r.rpc {
			got = append(got, r.path)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("routes:\n%v\nprocedures:\n%v", got, want)
	}
}

// allowed says, independently of routes, what each kind of token may do.
var allowed = map[string]string{
	"Status": "read operate", "Plan": "operate", "Parked": "read operate", "AuditLog": "read operate", "Explain": "read operate", "Tail": "read operate",
	"Apply": "operate", "Pause": "operate", "Resume": "operate", "Seek": "operate", "Throttle": "operate", "Redrive": "operate", "Discard": "operate", "RemoveSource": "operate",
	"Ranges": "read operate", "SplitRange": "operate", "MergeRanges": "operate", "Replay": "operate", "Backfill": "operate", "Jobs": "read operate", "PauseJob": "operate", "ResumeJob": "operate", "CancelJob": "operate",
	"Verify": "operate",
	"Pull":   "search", "Receive": "search", "Ack": "search", "Extend": "search", "Fetch": "search",
	"/v1/subscriptions/search/events":           "read operate search",
	"/v1/subscriptions/search/types.ts":         "read operate search",
	"/schemas/files/public.fi%2Eles%20%C3%BC/3": "read operate search other publish",
	"/metrics": "read operate", "/healthz": "read operate search other publish wrong nobody", "/readyz": "read operate search other publish wrong nobody",
	"/nothing": "read operate search other publish",
}

var people = []string{"read", "operate", "search", "other", "publish", "wrong", "nobody"}

func peopleOptions() Options {
	return Options{Tokens: []Token{token("read", "read"), token("operate", "operate"), token("search", "subscribe:search"),
		token("other", "subscribe:other"), token("publish", "publish")}}
}

func secretOf(who string) string {
	if who == "nobody" {
		return ""
	}
	return "the token of " + who
}

// call makes the named call; the server's verdict is its code, 0 when it was let through.
func call(x *served, c *http.Client, what string, opts ...connect.ClientOption) connect.Code {
	ctx := context.Background()
	a := leatv1connect.NewAdminServiceClient(c, x.url, opts...)
	s := leatv1connect.NewSubscriberServiceClient(c, x.url, opts...)
	var err error
	switch what {
	case "Status":
		_, err = a.Status(ctx, connect.NewRequest(&leatv1.StatusRequest{}))
	case "Plan":
		_, err = a.Plan(ctx, connect.NewRequest(&leatv1.PlanRequest{}))
	case "Apply":
		_, err = a.Apply(ctx, connect.NewRequest(&leatv1.ApplyRequest{}))
	case "Pause":
		_, err = a.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{Subscription: "search"}))
	case "Resume":
		_, err = a.Resume(ctx, connect.NewRequest(&leatv1.ResumeRequest{Subscription: "search"}))
	case "Seek":
		_, err = a.Seek(ctx, connect.NewRequest(&leatv1.SeekRequest{Subscription: "search", To: &leatv1.SeekRequest_Latest{Latest: true}}))
	case "Parked":
		_, err = a.Parked(ctx, connect.NewRequest(&leatv1.ParkedRequest{Subscription: "search"}))
	case "Redrive":
		_, err = a.Redrive(ctx, connect.NewRequest(&leatv1.RedriveRequest{Subscription: "search", All: true}))
	case "Discard":
		_, err = a.Discard(ctx, connect.NewRequest(&leatv1.DiscardRequest{Subscription: "search", All: true}))
	case "Explain":
		_, err = a.Explain(ctx, connect.NewRequest(&leatv1.ExplainRequest{Subscription: "search", Key: "[1]"}))
	case "Throttle":
		_, err = a.Throttle(ctx, connect.NewRequest(&leatv1.ThrottleRequest{Name: "search", Off: true}))
	case "AuditLog":
		_, err = a.AuditLog(ctx, connect.NewRequest(&leatv1.AuditLogRequest{}))
	case "RemoveSource":
		_, err = a.RemoveSource(ctx, connect.NewRequest(&leatv1.RemoveSourceRequest{Name: "files"}))
	case "Tail":
		var st *connect.ServerStreamForClient[leatv1.TailResponse]
		if st, err = a.Tail(ctx, connect.NewRequest(&leatv1.TailRequest{Name: "files"})); err == nil {
			for st.Receive() {
			}
			err = st.Err()
			_ = st.Close()
		}
	case "Verify":
		var st *connect.ServerStreamForClient[leatv1.VerifyResponse]
		if st, err = a.Verify(ctx, connect.NewRequest(&leatv1.VerifyRequest{Subscription: "search"})); err == nil {
			for st.Receive() {
			}
			err = st.Err()
			_ = st.Close()
		}
	case "Ranges":
		_, err = a.Ranges(ctx, connect.NewRequest(&leatv1.RangesRequest{Source: "files"}))
	case "SplitRange":
		_, err = a.SplitRange(ctx, connect.NewRequest(&leatv1.SplitRangeRequest{Source: "files", Key: "{}"}))
	case "MergeRanges":
		_, err = a.MergeRanges(ctx, connect.NewRequest(&leatv1.MergeRangesRequest{Source: "files", Ranges: []uint64{1, 2}}))
	case "Replay":
		_, err = a.Replay(ctx, connect.NewRequest(&leatv1.ReplayRequest{Subscription: "search", Mode: "aside", From: &leatv1.Place{At: &leatv1.Place_Offset{Offset: 1}}}))
	case "Jobs":
		_, err = a.Jobs(ctx, connect.NewRequest(&leatv1.JobsRequest{}))
	case "PauseJob":
		_, err = a.PauseJob(ctx, connect.NewRequest(&leatv1.PauseJobRequest{Id: "j1"}))
	case "ResumeJob":
		_, err = a.ResumeJob(ctx, connect.NewRequest(&leatv1.ResumeJobRequest{Id: "j1"}))
	case "Backfill":
		_, err = a.Backfill(ctx, connect.NewRequest(&leatv1.BackfillRequest{Subscription: "search"}))
	case "CancelJob":
		_, err = a.CancelJob(ctx, connect.NewRequest(&leatv1.CancelJobRequest{Id: "j1"}))
	case "Pull":
		st := s.Pull(ctx)
		_ = st.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: "search"}}})
		_, err = st.Receive()
		_ = st.CloseRequest()
		_ = st.CloseResponse()
	case "Receive":
		_, err = s.Receive(ctx, connect.NewRequest(&leatv1.ReceiveRequest{Subscription: "search"}))
	case "Ack":
		_, err = s.Ack(ctx, connect.NewRequest(&leatv1.AckRequest{Subscription: "search"}))
	case "Fetch":
		_, err = s.Fetch(ctx, connect.NewRequest(&leatv1.FetchRequest{Subscription: "search"}))
	case "Extend":
		_, err = s.Extend(ctx, connect.NewRequest(&leatv1.ExtendRequest{Subscription: "search"}))
	default:
		return get(x, c, what)
	}
	return code(err)
}

func get(x *served, c *http.Client, path string) connect.Code {
	r, err := c.Get(x.url + path)
	if err != nil {
		x.t.Error(err)
		return connect.CodeUnknown
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	switch r.StatusCode {
	case http.StatusUnauthorized:
		if r.Header.Get("WWW-Authenticate") != "Bearer" {
			x.t.Errorf("%s: no WWW-Authenticate", path)
		}
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusNotFound:
		if path == "/nothing" {
			return 0
		}
		return connect.CodeNotFound
	}
	return 0
}

func TestRolesByRoute(t *testing.T) {
	x := serve(t, peopleOptions(), nil)
	for _, h2 := range []bool{true, false} {
		for _, who := range people {
			c := x.client(h2, secretOf(who))
			for what, may := range allowed {
				for proto, opts := range map[string][]connect.ClientOption{"connect": nil, "json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "web": {connect.WithGRPCWeb()}} {
					if !h2 && (what == "Pull" || proto == "grpc") || what[0] == '/' && proto != "connect" {
						continue
					}
					want := connect.CodePermissionDenied
					switch {
					case slices.Contains(strings.Fields(may), who):
						want = 0
					case who == "nobody" || who == "wrong":
						want = connect.CodeUnauthenticated
					}
					if got := call(x, c, what, opts...); got != want {
						t.Errorf("%s as %s over %s (h2 %v): %v, want %v", what, who, proto, h2, got, want)
					}
				}
			}
		}
	}
}

// TestSubscriptionInMessage: the role is held against what the message names, not only against the path.
func TestSubscriptionInMessage(t *testing.T) {
	x := serve(t, peopleOptions(), nil)
	s := leatv1connect.NewSubscriberServiceClient(x.client(true, secretOf("search")), x.url)
	st := s.Pull(t.Context())
	defer st.CloseResponse()
	start := func(name string) {
		if err := st.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: name}}}); err != nil {
			t.Fatal(err)
		}
	}
	start("search")
	if _, err := st.Receive(); err != nil {
		t.Fatal(err)
	}
	start("other") // a second Start is checked as the first
	if _, err := st.Receive(); code(err) != connect.CodePermissionDenied {
		t.Errorf("second Start: %v", err)
	}
	early := s.Pull(t.Context())
	defer early.CloseResponse()
	if err := early.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Credit{Credit: &leatv1.Credit{Events: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := early.Receive(); code(err) != connect.CodeInvalidArgument {
		t.Errorf("Credit before Start: %v", err)
	}
	if err := MaySubscribe(t.Context(), "search"); code(err) != connect.CodeUnauthenticated {
		t.Errorf("a context of nobody: %v", err)
	}
}

func TestActor(t *testing.T) {
	b := &backend{}
	o := peopleOptions()
	o.Backend = b
	x := serve(t, o, nil)
	call(x, x.client(true, secretOf("operate")), "Pause")
	b2 := &backend{}
	y := serve(t, Options{Backend: b2}, nil)
	call(y, y.client(false, ""), "Apply")
	if !slices.Equal(b.actors, []string{"operate"}) || !slices.Equal(b2.actors, []string{"loopback"}) {
		t.Errorf("actors %v, %v", b.actors, b2.actors)
	}
}

// TestAudit: each change is told with who, what, with what and what came of it, also where it was refused.
func TestAudit(t *testing.T) {
	b := &backend{}
	o := peopleOptions()
	o.Backend = b
	x := serve(t, o, nil)
	c := leatv1connect.NewAdminServiceClient(x.client(true, secretOf("operate")), x.url)
	ctx := t.Context()
	do := func(f func() error) { _ = f() } // what came of it is what is looked at below
	do(func() error {
		_, err := c.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{Subscription: "a", Reason: "why"}))
		return err
	})
	do(func() error { _, err := c.Status(ctx, connect.NewRequest(&leatv1.StatusRequest{})); return err })
	do(func() error {
		_, err := c.Seek(ctx, connect.NewRequest(&leatv1.SeekRequest{Subscription: "a", DryRun: true, To: &leatv1.SeekRequest_Offset{Offset: 7}}))
		return err
	})
	do(func() error {
		_, err := c.Apply(ctx, connect.NewRequest(&leatv1.ApplyRequest{Name: "leat.yaml", Config: []byte("password: s3cret"), Drop: []string{"old"}}))
		return err
	})
	b.err = Errorf(Precondition, "not now")
	do(func() error {
		_, err := c.Replay(ctx, connect.NewRequest(&leatv1.ReplayRequest{Subscription: "a", Mode: "aside", DryRun: true, From: &leatv1.Place{At: &leatv1.Place_Offset{Offset: 7}}}))
		return err
	})
	do(func() error {
		_, err := c.Replay(ctx, connect.NewRequest(&leatv1.ReplayRequest{Subscription: "a", Mode: "aside", From: &leatv1.Place{At: &leatv1.Place_Offset{Offset: 7}},
			To: &leatv1.Place{At: &leatv1.Place_Offset{Offset: 7}}}))
		return err
	})
	do(func() error {
		_, err := c.Seek(ctx, connect.NewRequest(&leatv1.SeekRequest{Subscription: "a", To: &leatv1.SeekRequest_Offset{Offset: 7}}))
		return err
	})
	b.err = errors.New("the disk")
	do(func() error {
		_, err := c.RemoveSource(ctx, connect.NewRequest(&leatv1.RemoveSourceRequest{Name: "files"}))
		return err
	})
	b.err, b.panics = nil, true
	do(func() error {
		_, err := c.Resume(ctx, connect.NewRequest(&leatv1.ResumeRequest{Subscription: "a"}))
		return err
	})
	b.panics = false
	do(func() error { _, err := c.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{})); return err })
	reader := leatv1connect.NewAdminServiceClient(x.client(true, secretOf("read")), x.url)
	do(func() error {
		_, err := reader.RemoveSource(ctx, connect.NewRequest(&leatv1.RemoveSourceRequest{Name: "files"}))
		return err
	})
	do(func() error { _, err := reader.Plan(ctx, connect.NewRequest(&leatv1.PlanRequest{})); return err })
	nobody := leatv1connect.NewAdminServiceClient(x.client(true, ""), x.url)
	do(func() error {
		_, err := nobody.Pause(ctx, connect.NewRequest(&leatv1.PauseRequest{Subscription: "a"}))
		return err
	})
	want := []string{
		`operate pause a {"reason":"why"}: noted <nil> false`,
		`operate apply leat.yaml {"drop":["old"]}: <nil> false`,
		`operate replay a {"dry_run":true,"from":7,"mode":"aside"}: not now true`,
		`operate replay a {"from":7,"mode":"aside","to":7}: the window ends at 7, before or where it starts (7) true`,
		`operate seek a {"to":7}: not now true`,
		`operate remove files {}: the disk false`,
		`operate resume a {}: /leat.v1.AdminService/Resume failed in a way that is a fault of Leat false`,
		`operate pause  {}: the name of the subscription is missing true`,
		`read remove  : the token's roles do not allow this true`,
	}
	if !slices.Equal(b.audited, want) {
		t.Errorf("audited\n%s\nwant\n%s", strings.Join(b.audited, "\n"), strings.Join(want, "\n"))
	}
}

func TestTokensChangeWhileRunning(t *testing.T) {
	x := serve(t, peopleOptions(), nil)
	c := x.client(true, secretOf("late"))
	if got := call(x, c, "Status"); got != connect.CodeUnauthenticated {
		t.Errorf("before: %v", got)
	}
	if err := x.s.SetTokens([]Token{token("late", "read")}); err != nil {
		t.Fatal(err)
	}
	if got := call(x, c, "Status"); got != 0 {
		t.Errorf("after: %v", got)
	}
	if got := call(x, x.client(true, secretOf("read")), "Status"); got != connect.CodeUnauthenticated {
		t.Errorf("withdrawn token: %v", got)
	}
	if err := x.s.SetTokens(nil); err == nil {
		t.Error("tokens could be switched off")
	}
}

// A stream that is open when its token goes ends; that of a token which keeps its roles goes on.
func TestAWithdrawnTokenEndsItsStreams(t *testing.T) {
	x := serve(t, Options{Backend: &backend{events: numbers(1, 1)}, Tokens: []Token{token("gone", "read"), token("less", "read", "subscribe:a"), token("stays", "read")}}, nil)
	ended := map[string]chan struct{}{}
	for _, who := range []string{"gone", "less", "stays"} {
		resp, body := x.listen(x.client(false, secretOf(who)), searchEvents, "")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", who, resp.Status)
		}
		done := make(chan struct{})
		ended[who] = done
		go func() {
			defer close(done)
			_, _ = io.Copy(io.Discard, body)
		}()
	}
	if err := x.s.SetTokens([]Token{token("less", "read"), token("stays", "read", "operate")}); err != nil {
		t.Fatal(err)
	}
	<-ended["gone"]
	<-ended["less"]
	select {
	case <-ended["stays"]:
		t.Error("a stream whose token may as much as before was ended")
	default:
	}
}

func TestOptionsAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"no backend": {},
		"short hash": {Backend: &backend{}, Tokens: []Token{{Name: "a", SHA256: "abcd"}}},
		"role":       {Backend: &backend{}, Tokens: []Token{token("a", "root")}},
		"no name":    {Backend: &backend{}, Tokens: []Token{token("a", "subscribe:")}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	s, err := New(Options{Backend: &backend{}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "tokens") {
		t.Errorf("every address without tokens: %v", err)
	}
}

func TestHostAndOrigin(t *testing.T) {
	x := serve(t, Options{Listen: "Leat.Test:7070", PublicURL: "https://leat.example"}, nil)
	_, port, _ := net.SplitHostPort(x.addr)
	c := x.client(false, "")
	ask := func(host, origin, site string) int {
		r, err := http.NewRequest("POST", x.url+leatv1connect.AdminServiceStatusProcedure, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("Content-Type", "application/json")
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		p, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		p.Body.Close()
		return p.StatusCode
	}
	for host, want := range map[string]int{
		"127.0.0.1:" + port: 200, "localhost:" + port: 200, "LocalHost:" + port: 200, "[::1]:" + port: 200, "leat.test:" + port: 200, "leat.example": 200,
		"evil.example:" + port: 403, "evil.example": 403, "127.0.0.1": 403, "localhost:1": 403, "localhost.evil.example:" + port: 403,
		"127.0.0.1.evil.example:" + port: 403, "leat.example:" + port: 403, "127.0.0.2:" + port: 403,
	} {
		if got := ask(host, "", ""); got != want {
			t.Errorf("host %s: %d, want %d", host, got, want)
		}
	}
	for origin, want := range map[string]int{
		"http://127.0.0.1:" + port: 200, "http://localhost:" + port: 200, "https://leat.example": 200,
		"null": 403, "http://localhost:3000": 403, "https://127.0.0.1:" + port: 403, "http://leat.example": 403, "http://evil.example": 403, "http://localhost": 403,
	} {
		if got := ask("127.0.0.1:"+port, origin, ""); got != want {
			t.Errorf("origin %s: %d, want %d", origin, got, want)
		}
	}
	for site, want := range map[string]int{"same-origin": 200, "none": 200, "cross-site": 403, "same-site": 403} {
		if got := ask("127.0.0.1:"+port, "", site); got != want {
			t.Errorf("Sec-Fetch-Site %s: %d, want %d", site, got, want)
		}
	}
	// With tokens nothing a browser sends by itself lets anyone in, and proxies may use any name.
	y := serve(t, peopleOptions(), nil)
	r, _ := http.NewRequest("GET", y.url+"/metrics", nil)
	r.Host = "any.example"
	p, err := y.client(false, secretOf("read")).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	p.Body.Close()
	if p.StatusCode != 200 {
		t.Errorf("other Host with a token: %d", p.StatusCode)
	}
}

// TestTimestamps of requests are checked before the backend sees them.
func TestBadRequests(t *testing.T) {
	b := &backend{}
	x := serve(t, Options{Backend: b}, nil)
	a := leatv1connect.NewAdminServiceClient(x.client(true, ""), x.url)
	bad := &timestamppb.Timestamp{Seconds: 1 << 60}
	_, err := a.Seek(t.Context(), connect.NewRequest(&leatv1.SeekRequest{Subscription: "a", To: &leatv1.SeekRequest_Time{Time: bad}}))
	if code(err) != connect.CodeInvalidArgument {
		t.Errorf("seek to no time: %v", err)
	}
	for _, r := range []*leatv1.SeekRequest{{}, {Subscription: "a"}, {Subscription: "a", To: &leatv1.SeekRequest_Latest{}}} {
		if _, err = a.Seek(t.Context(), connect.NewRequest(r)); code(err) != connect.CodeInvalidArgument {
			t.Errorf("seek %v: %v", r, err)
		}
	}
	for _, r := range []*leatv1.RedriveRequest{{All: true}, {Subscription: "a"}, {Subscription: "a", All: true, Keys: []string{"[1]"}}, {Subscription: "a", Keys: make([]string, maxKeys+1)}} {
		if _, err = a.Redrive(t.Context(), connect.NewRequest(r)); code(err) != connect.CodeInvalidArgument {
			t.Errorf("redrive %v: %v", r, err)
		}
		d := &leatv1.DiscardRequest{Subscription: r.Subscription, All: r.All, Keys: r.Keys}
		if _, err = a.Discard(t.Context(), connect.NewRequest(d)); code(err) != connect.CodeInvalidArgument {
			t.Errorf("discard %v: %v", d, err)
		}
	}
	two, half, no := 2.0, 0.5, math.NaN()
	for _, r := range []*leatv1.ThrottleRequest{{}, {Ratio: &half}, {Name: "a"}, {Name: "a", Ratio: &two}, {Name: "a", Ratio: &no}, {Name: "a", Ratio: &half, Off: true},
		{Name: "a", Ratio: &half, Duration: durationpb.New(-time.Second)}} {
		if _, err = a.Throttle(t.Context(), connect.NewRequest(r)); code(err) != connect.CodeInvalidArgument {
			t.Errorf("throttle %v: %v", r, err)
		}
	}
	_, err = a.Pause(t.Context(), connect.NewRequest(&leatv1.PauseRequest{}))
	if code(err) != connect.CodeInvalidArgument {
		t.Errorf("pause nothing: %v", err)
	}
	if len(b.actors) != 0 {
		t.Error("the backend was asked")
	}
}
