package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
)

type controllerKey struct{}

// controllerOf returns the controller of the answer that ctx belongs to, for views.
func controllerOf(ctx context.Context) *http.ResponseController {
	c, _ := ctx.Value(controllerKey{}).(*http.ResponseController)
	return c
}

// wrap puts the checks and bounds of a route before its handler. It never wraps the ResponseWriter: a
// Pull's frames go straight to net/http.
func (s *Server) wrap(rt *route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			s.deny(w, r, rt, Unavailable, "the server is stopping")
			return
		}
		defer s.calls.Done()
		a := s.admit(w, r, rt)
		if a == nil {
			return
		}
		ctx := context.WithValue(r.Context(), actorKey{}, a)
		if rt.shape != single {
			var end context.CancelFunc
			ctx, end = context.WithCancel(ctx)
			defer end()
			defer context.AfterFunc(s.stop, end)()
			defer s.track(r.Header, a, end)()
		}
		switch {
		case rt.shape == view:
			select {
			case s.views <- struct{}{}:
				defer func() { <-s.views }()
			default:
				w.Header().Set("Retry-After", "5")
				s.deny(w, r, rt, Unavailable, "too many event streams and tails are open")
				return
			}
			ctx = context.WithValue(ctx, controllerKey{}, http.NewResponseController(w))
		case rt.shape == single && rt.rpc:
			c := http.NewResponseController(w)
			if err := c.SetReadDeadline(time.Now().Add(s.o.Limits.BodyTime)); err == nil {
				r.Body = &timedBody{r.Body, c}
			}
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// admit returns the caller if it may use the route; else it has answered.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, rt *route) *actor {
	g := s.guard.Load()
	if len(g.tokens) == 0 {
		if why := s.places.refuse(r); why != "" {
			s.answer(w, r, rt, http.StatusForbidden, connect.NewError(connect.CodePermissionDenied, errors.New(why)))
			return nil
		}
	}
	h := r.Header
	if _, token, ok := r.BasicAuth(); ok && rt.clients {
		h = http.Header{"Authorization": {"Bearer " + token}}
	}
	a := g.actor(h)
	switch {
	case a == nil && rt.need == needNothing:
		a = &actor{}
	case a == nil:
		w.Header().Set("WWW-Authenticate", "Bearer")
		s.answer(w, r, rt, http.StatusUnauthorized, errNoToken)
		return nil
	case !a.may(rt.need, r.PathValue("name")):
		if c := denied(rt); c != nil {
			s.o.Backend.Audit(context.WithValue(context.WithoutCancel(r.Context()), actorKey{}, a), *c)
		}
		s.answer(w, r, rt, http.StatusForbidden, errNoRole)
		return nil
	}
	if !rt.rpc {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !rt.clients {
			h.Set("Allow", "GET, HEAD")
			s.answer(w, r, rt, http.StatusMethodNotAllowed, connect.NewError(connect.CodeUnimplemented, errors.New("only GET is answered here")))
			return nil
		}
	}
	return a
}

func (s *Server) deny(w http.ResponseWriter, r *http.Request, rt *route, k Kind, text string) {
	s.answer(w, r, rt, kinds[k].status, connect.NewError(kinds[k].code, errors.New(text)))
}

// answer refuses a request in the protocol that it speaks.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, rt *route, status int, err *connect.Error) {
	if rt.rpc && s.refusal.IsSupported(r) {
		// The client is gone when this fails: there is nobody to tell.
		_ = s.refusal.Write(w, r, err)
		return
	}
	http.Error(w, err.Message(), status)
}

// timedBody lifts the read deadline once the body is read: on HTTP/1 it would end a long call.
type timedBody struct {
	io.ReadCloser
	c *http.ResponseController
}

// Read reads; the end lifts the deadline.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		if e := b.c.SetReadDeadline(time.Time{}); e != nil {
			return n, e
		}
	}
	return n, err
}
