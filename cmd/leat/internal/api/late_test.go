package api

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// A client that is always late is in the audit log once a minute, with how often it was; what is no ack, or was taken,
// is not.
func TestLateAcksAreAuditedOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		l := &lateCompletions{b: b}
		var answer error
		call := l.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, answer })
		ack := func(subscription string) {
			_, _ = call(t.Context(), connect.NewRequest(&leatv1.AckRequest{Subscription: subscription, Lease: "x-1"}))
		}
		ack("p")
		answer = connect.NewError(connect.CodeInvalidArgument, errors.New("no lease"))
		ack("p")
		answer = connect.NewError(connect.CodeFailedPrecondition, errors.New("it expired"))
		_, _ = call(t.Context(), connect.NewRequest(&leatv1.ExtendRequest{Subscription: "p"}))
		if len(b.audited) > 0 {
			t.Fatal(b.audited)
		}
		for range 90 { // seconds
			ack("p")
			ack("q")
			time.Sleep(time.Second)
		}
		if n := strings.Count(strings.Join(b.audited, "\n"), ` ack p {"lease":"x-1"}: it expired`); n != 2 || len(b.audited) != 4 || !strings.Contains(b.audited[2], "60 completions of this subscription came too late") {
			t.Errorf("%d: %s", n, strings.Join(b.audited, "\n"))
		}
	})
}
