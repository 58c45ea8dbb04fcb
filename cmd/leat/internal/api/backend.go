package api

import (
	"context"

	"github.com/leat-cdc/leat/schemas"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// Backend is what the API shows and changes. Its methods are called concurrently; ctx ends when the client
// goes away, and for streams also when the server stops. [Actor] tells who calls; what changes something is
// followed by Audit, whatever came of it.
//
// Errors reach the client as text, so they hold no secrets; those made by [Errorf] keep their kind, others
// are internal errors.
type Backend interface {
	// Status of the named source or subscription; of all when name is empty.
	Status(ctx context.Context, name string) (*leatv1.StatusResponse, error)
	Plan(ctx context.Context, r *leatv1.PlanRequest) (*leatv1.PlanResponse, error)
	Apply(ctx context.Context, r *leatv1.ApplyRequest) (*leatv1.ApplyResponse, error)
	Pause(ctx context.Context, r *leatv1.PauseRequest) error
	Resume(ctx context.Context, r *leatv1.ResumeRequest) error
	Seek(ctx context.Context, r *leatv1.SeekRequest) (*leatv1.SeekResponse, error)
	Parked(ctx context.Context, r *leatv1.ParkedRequest) (*leatv1.ParkedResponse, error)
	RemoveSource(ctx context.Context, r *leatv1.RemoveSourceRequest) (*leatv1.RemoveSourceResponse, error)
	// Redrive and Discard have either keys or all.
	Redrive(ctx context.Context, r *leatv1.RedriveRequest) (*leatv1.RedriveResponse, error)
	Discard(ctx context.Context, r *leatv1.DiscardRequest) (*leatv1.DiscardResponse, error)
	// Explain has a name, and either an event's id or a key.
	Explain(ctx context.Context, r *leatv1.ExplainRequest) (*leatv1.ExplainResponse, error)
	// Throttle has a name, and a ratio from 0 to 1 unless it is off.
	Throttle(ctx context.Context, r *leatv1.ThrottleRequest) (*leatv1.ThrottleResponse, error)
	// SplitRange has a source and a key, MergeRanges a source and two ranges or more.
	Ranges(ctx context.Context, r *leatv1.RangesRequest) (*leatv1.RangesResponse, error)
	SplitRange(ctx context.Context, r *leatv1.SplitRangeRequest) (*leatv1.SplitRangeResponse, error)
	MergeRanges(ctx context.Context, r *leatv1.MergeRangesRequest) (*leatv1.MergeRangesResponse, error)
	// Replay has a subscription, a mode that is one, and from. Jobs that change have an id.
	Replay(ctx context.Context, r *leatv1.ReplayRequest) (*leatv1.ReplayResponse, error)
	Jobs(ctx context.Context, r *leatv1.JobsRequest) (*leatv1.JobsResponse, error)
	PauseJob(ctx context.Context, r *leatv1.PauseJobRequest) (*leatv1.PauseJobResponse, error)
	ResumeJob(ctx context.Context, r *leatv1.ResumeJobRequest) (*leatv1.ResumeJobResponse, error)
	CancelJob(ctx context.Context, r *leatv1.CancelJobRequest) (*leatv1.CancelJobResponse, error)
	// Backfill has a subscription.
	Backfill(ctx context.Context, r *leatv1.BackfillRequest) (*leatv1.BackfillResponse, error)
	AuditLog(ctx context.Context, r *leatv1.AuditLogRequest) (*leatv1.AuditLogResponse, error)
	// Audit keeps what a caller did or tried to do.
	Audit(ctx context.Context, c Change)
	// Tail calls send with events as CloudEvents JSON until ctx or the stream ends; nil = the end was
	// reached (no_follow). The events may be used again once send returned; an error of send ends Tail.
	Tail(ctx context.Context, r *leatv1.TailRequest, send func(events [][]byte) error) error
	// Verify has a subscription. It calls send with the progress, at most a few times a second, and at last with the
	// report.
	Verify(ctx context.Context, r *leatv1.VerifyRequest, send func(*leatv1.VerifyResponse) error) error
	// Events calls send with what the subscription is to see, until ctx ends. It moves no cursor and holds
	// nothing back. An error of kind [Gone] before the first send: the place asked for is older than
	// retention. What send is given may be used again once it returned; its error ends Events.
	Events(ctx context.Context, r EventsRequest, send func([]Event) error) error
	// Ready reports whether every source streams and every subscription runs; else why not, a line each,
	// which anyone may read: no secrets, no addresses.
	Ready() (ok bool, why []string)
	// Schema returns a version of a table's shape, as events name it in dataschema. Immutable.
	Schema(source, table string, version uint32) (*schemas.Table, bool)
	// Types is a module of TypeScript with the types of what a subscription gets of each table, as it is now.
	Types(ctx context.Context, subscription string) (string, error)
}

// EventsRequest asks for a view of a subscription's stream.
type EventsRequest struct {
	Subscription string
	// After is the offset of the last event that the client has; nil: what comes from now on.
	After *uint64
	// Source is the source's name in the event id that After was taken from; empty when the client gave a
	// bare offset. Another source than the subscription's is Invalid.
	Source string
}

// Event of a view.
type Event struct {
	Offset uint64
	// ID of the event; empty for leat.resolved, after which nobody resumes.
	ID string
	// JSON is the structured CloudEvent, in one line.
	JSON []byte
}
