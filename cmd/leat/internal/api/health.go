package api

import (
	"io"
	"net/http"
	"strings"
)

func healthz(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") }

// readyz says what does not run, a line each.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if s.stop.Err() != nil {
		plain(w, http.StatusServiceUnavailable, "stopping\n")
		return
	}
	ok, why := s.o.Backend.Ready()
	if ok {
		plain(w, http.StatusOK, "ok\n")
		return
	}
	if len(why) == 0 {
		why = []string{"not ready"}
	}
	plain(w, http.StatusServiceUnavailable, strings.Join(why, "\n")+"\n")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// Fails when the client is gone: there is nobody to tell.
	_, _ = io.WriteString(w, text)
}
