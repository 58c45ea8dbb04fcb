package api

import (
	"net/http"
	"strconv"
	"strings"
)

// schema resolves the dataschema of events.
func (s *Server) schema(w http.ResponseWriter, r *http.Request) {
	// The table's name is percent-encoded by itself, so it is taken as it stands in the path.
	table := r.PathValue("table")
	if parts := strings.Split(r.URL.EscapedPath(), "/"); len(parts) == 5 {
		table = parts[3]
	}
	version, err := strconv.ParseUint(r.PathValue("version"), 10, 32)
	if err != nil {
		plain(w, http.StatusBadRequest, "the version is not a number\n")
		return
	}
	source := r.PathValue("source")
	t, ok := s.o.Backend.Schema(source, table, uint32(version))
	if !ok {
		plain(w, http.StatusNotFound, "no such version of a table: the log never had it, or it was written by a version of Leat that did not keep old shapes\n")
		return
	}
	doc, err := describe(strings.TrimSuffix(s.o.PublicURL, "/")+r.URL.EscapedPath(), t)
	if err != nil {
		plain(w, http.StatusInternalServerError, err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "application/schema+json")
	w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	// Fails when the client is gone: there is nobody to tell.
	_, _ = w.Write(doc)
}

// types answers with the types of a subscription's events for TypeScript.
func (s *Server) types(w http.ResponseWriter, r *http.Request) {
	text, err := s.o.Backend.Types(r.Context(), r.PathValue("name"))
	if err != nil {
		plain(w, kinds[kindOf(err)].status, err.Error()+"\n")
		return
	}
	plain(w, http.StatusOK, text)
}
