package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leat-cdc/leat/pipeline"
)

// Codes of the SourceErrors of this package.
const (
	CodeUnreachable        = "unreachable"
	CodeAuth               = "auth"
	CodePermission         = "permission"
	CodePooler             = "pooler"
	CodeSettings           = "settings"
	CodeVersion            = "version"
	CodeWalLevel           = "wal_level"
	CodeServer             = "server_error"
	CodeConnectionLost     = "connection_lost"
	CodeNoAnswer           = "no_answer"
	CodeProtocol           = "protocol"
	CodeDatabase           = "database_missing"
	CodePosition           = "position"
	CodeStart              = "start"
	CodeSystem             = "other_system"
	CodeTimeline           = "other_timeline"
	CodeServerBehind       = "server_behind"
	CodeSlotMissing        = "slot_missing"
	CodeSlotActive         = "slot_active"
	CodeSlotLost           = "slot_lost"
	CodeSlotInvalidated    = "slot_invalidated"
	CodeSlotAhead          = "slot_ahead"
	CodeSlotPlugin         = "slot_plugin"
	CodeSlotDatabase       = "slot_database"
	CodeSlotLimit          = "slot_limit"
	CodeStandby            = "standby"
	CodeReopened           = "reopened"
	CodeRowTooLarge        = "row_too_large"
	CodeSenderLimit        = "sender_limit"
	CodePublicationMissing = "publication_missing"
	CodePublicationRights  = "publication_rights"
)

// masker takes the password out of texts.
type masker struct{ secrets []string }

func (m *masker) add(secret string) {
	for _, s := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
		if len(s) >= 3 { // shorter ones would garble everything and are no secret
			m.secrets = append(m.secrets, s)
		}
	}
}

func (m *masker) text(s string) string {
	for _, secret := range m.secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return s
}

// masked is an error whose text has been cleaned.
type masked struct {
	text string
	err  error
}

func (e *masked) Error() string { return e.text }

// Is and As look at the cause, but nobody gets at its text through Unwrap.
func (e *masked) Is(target error) bool { return errors.Is(e.err, target) }
func (e *masked) As(target any) bool   { return errors.As(e.err, target) }

func (m *masker) error(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if clean := m.text(text); clean != text {
		return &masked{clean, err}
	}
	return err
}

// stopped is an error that only a person can end.
func (s *Source) stopped(code, what, cure string, args ...any) *pipeline.SourceError {
	return &pipeline.SourceError{
		Class: pipeline.Stopped, Code: code, What: fmt.Sprintf("source %s: %s", s.cfg.Name, what), Cure: fmt.Sprintf(cure, args...),
	}
}

// failure tells what an error of the connection or the server means. what is what was tried.
func (s *Source) failure(what string, err error) error {
	var known *pipeline.SourceError
	if err == nil || errors.As(err, &known) {
		return err
	}
	e := &pipeline.SourceError{Code: CodeServer, What: fmt.Sprintf("source %s: %s", s.cfg.Name, what), Err: s.mask.error(err)}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		s.classify(e, pg)
		return e
	}
	e.Code = CodeConnectionLost
	var dial *pgconn.ConnectError
	switch {
	case errors.As(err, &dial):
		e.Code, e.Cure = CodeUnreachable, "check the address, the network and that the server runs"
		if strings.Contains(err.Error(), "server refused TLS connection") {
			e.Cure = "the server speaks no TLS: turn it on there (ssl = on), or sslmode=disable in the url, only on a trusted network"
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("source %s: %s: %w", s.cfg.Name, what, s.mask.error(err))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		e.Err = errors.New("the server closed the connection")
	}
	return e
}

// classify sets class, code and cure by the server's SQLSTATE.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
func (s *Source) classify(e *pipeline.SourceError, pg *pgconn.PgError) {
	stop := func(code, cure string) { e.Class, e.Code, e.Cure = pipeline.Stopped, code, cure }
	begin := fmt.Sprintf(anew, s.cfg.Name)
	switch text := pg.Message; {
	case pg.Code == "28P01", pg.Code == "28000":
		stop(CodeAuth, "check user and password in the source's url, and the lines for it in pg_hba.conf")
	case pg.Code == "3D000":
		stop(CodeDatabase, "check the database's name in the source's url")
	case strings.Contains(text, "unsupported startup parameter"):
		stop(CodePooler, "a pooler stands between: connect to the server itself, logical replication does not go through poolers")
	case pg.Code == "42501":
		stop(CodePermission, "give the role of the source what it lacks; leat check lists it")
	case pg.Code == "55006":
		e.Code, e.Cure = CodeSlotActive, "end the other reader of the slot, or give this source a slot of its own"
	case pg.Code == "58P01", pg.Code == "55000" && strings.Contains(text, "replication slot"):
		stop(CodeSlotLost, "what the slot should have kept is gone: "+begin)
	case pg.Code == "55000" && strings.Contains(text, "wal_level"):
		stop(CodeWalLevel, "set wal_level = logical in postgresql.conf and restart the server")
	case pg.Code == "42704" && strings.Contains(text, "publication"):
		stop(CodePublicationMissing, "it has to exist since before what is to be read was written: drop the slot, then "+begin)
	case pg.Code == "42704" && strings.Contains(text, "slot"):
		stop(CodeSlotMissing, begin)
	case pg.Code == "53400" && strings.Contains(text, "replication slots"):
		stop(CodeSlotLimit, "raise max_replication_slots and restart the server, or drop a slot that nobody needs")
	case pg.Code == "54000", strings.Contains(text, "invalid memory alloc request size"), strings.Contains(text, "enlarge string buffer"):
		// A row whose columns together are over 1 GiB cannot be sent; the same comes with each new attempt.
		stop(CodeRowTooLarge, "the server cannot send a row of more than 1 GiB: leave its large columns out with columns:, drop the slot, then "+begin)
	case pg.Code == "53300":
		e.Code, e.Cure = CodeSenderLimit, "raise max_wal_senders or max_connections, or end what uses them up"
	case strings.HasPrefix(pg.Code, "57P"):
		e.Code = CodeUnreachable
	}
}
