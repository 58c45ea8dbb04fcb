package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

func fetch(t *testing.T, c *http.Client, method, url string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Body.Close()
	b, err := io.ReadAll(p.Body)
	if err != nil {
		t.Fatal(err)
	}
	return p.StatusCode, p.Header, string(b)
}

func TestHealth(t *testing.T) {
	b := &backend{ready: []string{"source files is connecting", "subscription search is blocked"}}
	x := serve(t, Options{Backend: b}, nil)
	c := x.client(true, "")
	if s, _, _ := fetch(t, c, "GET", x.url+"/healthz"); s != 200 {
		t.Errorf("healthz %d", s)
	}
	if s, _, text := fetch(t, c, "GET", x.url+"/readyz"); s != 503 || text != strings.Join(b.ready, "\n")+"\n" {
		t.Errorf("readyz %d %q", s, text)
	}
	b.ready = nil
	if s, _, _ := fetch(t, c, "GET", x.url+"/readyz"); s != 200 {
		t.Errorf("readyz %d", s)
	}
	if s, h, _ := fetch(t, c, "POST", x.url+"/metrics"); s != 405 || h.Get("Allow") == "" {
		t.Errorf("POST /metrics %d", s)
	}
	if s, _, text := fetch(t, c, "GET", x.url+"/metrics"); s != 200 || text != "leat_up 1\n" {
		t.Errorf("metrics %d %q", s, text)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	b := &backend{}
	x := serve(t, Options{Backend: b}, nil)
	a := leatv1connect.NewAdminServiceClient(x.client(true, ""), x.url)
	for k, want := range map[Kind]connect.Code{NotFound: connect.CodeNotFound, Invalid: connect.CodeInvalidArgument, Precondition: connect.CodeFailedPrecondition,
		Unavailable: connect.CodeUnavailable, Gone: connect.CodeOutOfRange, Internal: connect.CodeInternal} {
		b.err = fmt.Errorf("pause: %w", Errorf(k, "because"))
		_, err := a.Pause(t.Context(), connect.NewRequest(&leatv1.PauseRequest{Subscription: "x"}))
		if code(err) != want || !strings.Contains(fmt.Sprint(err), "pause: because") {
			t.Errorf("%v: %v", k, err)
		}
	}
	b.err, b.panics = nil, true
	_, err := a.Pause(t.Context(), connect.NewRequest(&leatv1.PauseRequest{Subscription: "x"}))
	if code(err) != connect.CodeInternal || strings.Contains(err.Error(), "whsec") {
		t.Errorf("panic: %v", err)
	}
}

// TestSchema: the document is a JSON Schema that takes what the interface shows and refuses wrong types.
func TestSchema(t *testing.T) {
	x := serve(t, Options{PublicURL: "https://leat.example/"}, nil)
	c := x.client(true, "")
	path := "/schemas/files/" + filesTable().Subject() + "/3"
	s, h, text := fetch(t, c, "GET", x.url+path)
	if s != 200 || h.Get("Content-Type") != "application/schema+json" || !strings.Contains(h.Get("Cache-Control"), "immutable") {
		t.Fatalf("%d %v %s", s, h, text)
	}
	if strings.Contains(text, "password") {
		t.Error("a column that is kept out is named")
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if id := doc.(map[string]any)["$id"]; id != "https://leat.example"+path {
		t.Errorf("$id %v", id)
	}
	k := jsonschema.NewCompiler()
	if err := k.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := k.Compile("s.json")
	if err != nil {
		t.Fatal(err)
	}
	const good = `{"op":"update","table":"public.fi%2Eles%20%C3%BC","key":{"id":42},"before":{"id":"42","namespace_id":77},
		"after":{"id":42,"namespace_id":77,"path":null,"tags":["a",["b"]],"body":"AA=="},"absent":["body"],"tx":{"id":"751","seq":2,"last":false},"position":"0/16B3748"}`
	for text, ok := range map[string]bool{good: true,
		strings.Replace(good, `"namespace_id":77,"path"`, `"namespace_id":"77","path"`, 1): false,
		strings.Replace(good, `"op":"update"`, `"op":"upsert"`, 1):                         false,
		`{"op":"snapshot","table":"public.fi%2Eles%20%C3%BC","after":{"id":1},"tx":null}`:  true,
		`{"op":"truncate","table":"public.other"}`:                                         false,
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiled.Validate(v); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
	for path, want := range map[string]int{"/schemas/files/public.x/1": 404, path + "x": 400, "/schemas/files/public.x/-1": 400, "/schemas/files/public.x": 404} {
		if s, _, _ := fetch(t, c, "GET", x.url+path); s != want {
			t.Errorf("%s: %d, want %d", path, s, want)
		}
	}
}

func TestReflection(t *testing.T) {
	x := serve(t, Options{}, nil)
	st := grpcreflect.NewClient(x.client(true, ""), x.url, connect.WithGRPC()).NewStream(t.Context())
	defer st.Close()
	names, err := st.ListServices()
	if err != nil || len(names) != 2 || !slices.Contains(names, "leat.v1.SubscriberService") {
		t.Errorf("%v %v", names, err)
	}
	if _, err := st.FileContainingSymbol("leat.v1.AdminService"); err != nil {
		t.Error(err)
	}
}

func TestLimits(t *testing.T) {
	x := serve(t, Options{Limits: Limits{MessageBytes: 64 << 10, HeaderBytes: 4 << 10, BodyTime: 100 * time.Millisecond}}, nil)
	for _, h2 := range []bool{false, true} {
		c := x.client(h2, "")
		for name, opts := range map[string][]connect.ClientOption{"plain": nil, "compressed": {connect.WithSendGzip()}} {
			a := leatv1connect.NewAdminServiceClient(c, x.url, opts...)
			_, err := a.Plan(t.Context(), connect.NewRequest(&leatv1.PlanRequest{Config: bytes.Repeat([]byte("a"), 128<<10)}))
			if code(err) != connect.CodeResourceExhausted {
				t.Errorf("%s message: %v", name, err)
			}
		}
		r, _ := http.NewRequest("GET", x.url+"/healthz", nil)
		r.Header.Set("X", strings.Repeat("a", 64<<10))
		if p, err := c.Do(r); err == nil {
			p.Body.Close()
			if p.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("header: %d", p.StatusCode)
			}
		}
		// A body that never comes.
		body, w := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		r, _ = http.NewRequestWithContext(ctx, "POST", x.url+leatv1connect.AdminServiceStatusProcedure, body)
		r.Header.Set("Content-Type", "application/json")
		if p, err := c.Do(r); err == nil {
			p.Body.Close()
			if p.StatusCode == 200 {
				t.Error("a call without its body was answered")
			}
		}
		if ctx.Err() != nil {
			t.Errorf("h2 %v: the server still waits for the body", h2)
		}
		cancel()
		w.Close()
	}
}

// TestLongCall: the bound on reading a body does not end a call that takes longer.
func TestLongCall(t *testing.T) {
	in, release := make(chan struct{}), make(chan struct{})
	x := serve(t, Options{Backend: &slowApply{backend: &backend{}, in: in, release: release}, Limits: Limits{BodyTime: 20 * time.Millisecond}}, nil)
	for _, h2 := range []bool{false, true} {
		done := make(chan error, 1)
		go func() {
			_, err := leatv1connect.NewAdminServiceClient(x.client(h2, ""), x.url).Apply(context.Background(), connect.NewRequest(&leatv1.ApplyRequest{}))
			done <- err
		}()
		<-in
		<-time.After(100 * time.Millisecond) // beyond BodyTime: the deadline itself is what is tried
		var err error
		select {
		case release <- struct{}{}:
			err = <-done
		case err = <-done:
		}
		if err != nil {
			t.Errorf("h2 %v: %v", h2, err)
		}
	}
}

func TestTLS(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	pair := cert.TLS.Certificates[0]
	tr := cert.Client().Transport.(*http.Transport).Clone()
	cert.Close()
	x := serve(t, Options{TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}, nil)
	for _, h2 := range []bool{false, true} {
		tr := tr.Clone()
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetHTTP1(!h2)
		tr.Protocols.SetHTTP2(h2)
		t.Cleanup(tr.CloseIdleConnections)
		p, err := (&http.Client{Transport: tr}).Get("https://" + x.addr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		p.Body.Close()
		if p.StatusCode != 200 || (p.ProtoMajor == 2) != h2 {
			t.Errorf("%d %s", p.StatusCode, p.Proto)
		}
	}
}

// TestPlainPost: curl without any library.
func TestPlainPost(t *testing.T) {
	x := serve(t, Options{}, nil)
	p, err := x.client(false, "").Post(x.url+"/leat.v1.AdminService/Status", "application/json", strings.NewReader(`{"name":"files"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Body.Close()
	var m map[string]any
	if err := json.NewDecoder(p.Body).Decode(&m); err != nil || m["version"] != "v0 files" {
		t.Errorf("%v %v", m, err)
	}
}

// BenchmarkPull is the way of the frames through the server: messages of 500 events of 180 B.
func BenchmarkPull(b *testing.B) {
	m := &leatv1.PullResponse{Message: &leatv1.PullResponse_Revoked{Revoked: &leatv1.Revoked{Reason: strings.Repeat("x", 500*180)}}}
	for name, o := range map[string]Options{"loopback": {}, "token": {Tokens: []Token{token("a", "subscribe:a")}}} {
		b.Run(name, func(b *testing.B) {
			x := serve(b, o, &subscriber{flood: m})
			st := leatv1connect.NewSubscriberServiceClient(x.client(true, secretOf("a")), x.url, connect.WithGRPC()).Pull(b.Context())
			if err := st.Send(&leatv1.PullRequest{Message: &leatv1.PullRequest_Start{Start: &leatv1.Start{Subscription: "a"}}}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := st.Receive(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(500*float64(b.N)/b.Elapsed().Seconds(), "events/s")
			_ = st.CloseRequest()
			_ = st.CloseResponse()
		})
	}
}
