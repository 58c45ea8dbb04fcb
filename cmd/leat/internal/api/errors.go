package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"connectrpc.com/connect"
)

// Kind of an error, for the status that a client sees.
type Kind uint8

const (
	// Internal: something failed here.
	Internal Kind = iota
	// NotFound: no such source, subscription, event.
	NotFound
	// Invalid: the request cannot be right, whatever the state.
	Invalid
	// Precondition: not in this state; the text says what has to change first.
	Precondition
	// Gone: older than retention.
	Gone
	// Unavailable: not now; again later.
	Unavailable
)

// code and status by Kind.
var kinds = [...]struct {
	code   connect.Code
	status int
}{
	Internal:     {connect.CodeInternal, http.StatusInternalServerError},
	NotFound:     {connect.CodeNotFound, http.StatusNotFound},
	Invalid:      {connect.CodeInvalidArgument, http.StatusBadRequest},
	Precondition: {connect.CodeFailedPrecondition, http.StatusConflict},
	Gone:         {connect.CodeOutOfRange, http.StatusGone},
	Unavailable:  {connect.CodeUnavailable, http.StatusServiceUnavailable},
}

// Error is an error whose kind the client sees.
type Error struct {
	Kind Kind
	Err  error
}

// Errorf makes an *Error; %w works as in fmt.Errorf.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Error is the text for the client.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) && int(e.Kind) < len(kinds) {
		return e.Kind
	}
	return Internal
}

// ConnectError gives an error of the Backend's kinds the code that clients see; nil stays nil.
func ConnectError(err error) error { return connectError(err) }

// connectError gives err the code of its kind.
func connectError(err error) error {
	if err == nil {
		return nil
	}
	var c *connect.Error
	var e *Error
	switch {
	case errors.As(err, &c):
		return err
	case errors.As(err, &e):
		return connect.NewError(kinds[kindOf(err)].code, err)
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	return connect.NewError(connect.CodeInternal, err)
}
