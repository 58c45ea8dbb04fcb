// Package replays delivers again what was delivered: leat replay, leat jobs.
package replays

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/fault"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/cmd/leat/internal/cli/shell"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// commands are those of one command line.
type commands struct{ *shell.App }

// planTime bounds the dry run, which reads the window.
const planTime = 30 * time.Minute

// replaying is one leat replay.
type replaying struct {
	aside, rewind, fenced        bool
	from, to                     string
	tables, keys, ranges, filter []string
	where                        []string // the same as filter
	reason                       string
	dryRun, yes, detach          bool
}

// Replay is leat replay.
func Replay(app *shell.App) *cobra.Command {
	a := &commands{app}
	var o replaying
	cmd := &cobra.Command{
		Use:   "replay SUBSCRIPTION --aside | --rewind --from PLACE",
		Short: "Deliver a window of the log again",
		Long: "--aside sends copies, tagged with the job, beside live deliveries: at most a fifth of what the subscriber\n" +
			"takes, none while it is behind; live cursors never move. --aside --fenced holds the live deliveries of the\n" +
			"same keys meanwhile, for subscribers that cannot tell copies apart. --rewind takes the keys back: their\n" +
			"events are delivered again from PLACE on, in order, and on into live.\n\n" +
			"A PLACE is an offset, an event's id, a time (RFC 3339), earliest, or a position in the source (LSN, GTID,\n" +
			"file:position). The window is half-open: it begins at --from and ends before --to. Tables, keys, ranges and\n" +
			"a filter narrow it; of a rewind and of --fenced a filter says where each key begins, and all later events of the\n" +
			"key follow. First the window is counted and shown, then it asks, then it shows the progress; Ctrl-C\n" +
			"ends the showing, the job goes on.",
		Example: "  leat replay search --aside --from 2026-11-21T10:00:00Z --to 2026-11-21T11:00:00Z --dry-run\n" +
			"  leat replay search --rewind --from 1877212358656123 --key '[77]' --key '[78]'\n" +
			"  leat replay search --aside --from earliest --table 'public.files' --filter 'op == \"delete\"' --yes\n" +
			"  leat replay search --aside --fenced --from 0/16B3748 --range 4 --range '{\"id\":1}..{\"id\":500}'",
		Args:              fault.Wants("SUBSCRIPTION"),
		ValidArgsFunction: a.Names(false, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := o.request(cmd, args[0])
			if err != nil {
				return err
			}
			return a.replay(cmd.Context(), req, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.aside, "aside", false, "copies beside live deliveries")
	f.BoolVar(&o.fenced, "fenced", false, "with --aside: hold the live deliveries of the same keys meanwhile")
	f.BoolVar(&o.rewind, "rewind", false, "take the keys back, and deliver on into live")
	f.StringVar(&o.from, "from", "", "begin at `PLACE`")
	f.StringVar(&o.to, "to", "", "end before `PLACE`; only with --aside (default: what was delivered so far)")
	f.StringArrayVar(&o.tables, "table", nil, "only tables that match `GLOB` (may be repeated)")
	f.StringArrayVar(&o.keys, "key", nil, "only this routing key, `JSON`: [77] or {\"id\":42} (may be repeated)")
	f.StringArrayVar(&o.ranges, "range", nil, "only this range: an `ID` of leat ranges, or JSON..JSON of keys (may be repeated)")
	f.StringArrayVar(&o.filter, "filter", nil, "only events for which this `CEL` holds")
	f.StringArrayVar(&o.where, "where", nil, "the same as --filter, `CEL`")
	f.StringVar(&o.reason, "reason", "", "`WHY`, for the audit log")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be delivered")
	f.BoolVar(&o.detach, "detach", false, "do not wait for the end")
	shell.YesFlag(cmd, &o.yes)
	a.JSONFlag(cmd)
	return cmd
}

// request checks what was typed.
func (o *replaying) request(cmd *cobra.Command, name string) (*leatv1.ReplayRequest, error) {
	r := &leatv1.ReplayRequest{Subscription: name, Reason: o.reason, Scope: &leatv1.ReplayScope{Tables: o.tables, Keys: o.keys}}
	switch {
	case o.aside && o.rewind:
		return nil, fault.Usage(cmd, "leat replay is either --aside or --rewind")
	case o.rewind && o.fenced:
		return nil, fault.Usage(cmd, "--fenced goes with --aside: a rewind delivers in order anyway")
	case o.rewind:
		r.Mode = "rewind"
	case o.fenced:
		r.Mode = "fenced"
	case o.aside:
		r.Mode = "aside"
	default:
		return nil, fault.Usage(cmd, "leat replay wants --aside (copies, beside live deliveries) or --rewind (deliver again, in order, on into live)")
	}
	if o.from == "" {
		return nil, fault.Usage(cmd, "leat replay wants --from PLACE: an offset, an event id, a time, a position in the source, earliest")
	}
	var err error
	if r.From, err = pointOf(cmd, "--from", o.from); err != nil {
		return nil, err
	}
	if o.to != "" && o.to != "latest" {
		if r.To, err = pointOf(cmd, "--to", o.to); err != nil {
			return nil, err
		}
	}
	for _, k := range o.keys {
		if !isKey(k) {
			return nil, fault.Usage(cmd, "--key is a routing key ('[77]') or a JSON object of its columns ('{\"id\":42}')")
		}
	}
	for _, text := range o.ranges {
		g, err := rangeOf(cmd, text)
		if err != nil {
			return nil, err
		}
		r.Scope.Ranges = append(r.Scope.Ranges, g)
	}
	switch all := append(o.filter, o.where...); len(all) {
	case 0:
	case 1:
		r.Scope.Filter = all[0]
	default:
		return nil, fault.Usage(cmd, "one --filter: join them by &&")
	}
	return r, nil
}

func isKey(k string) bool {
	k = strings.TrimSpace(k)
	return json.Valid([]byte(k)) && (strings.HasPrefix(k, "{") || strings.HasPrefix(k, "["))
}

func rangeOf(cmd *cobra.Command, text string) (*leatv1.ReplayRange, error) {
	if id, err := strconv.ParseUint(text, 10, 64); err == nil {
		return &leatv1.ReplayRange{Id: &id}, nil
	}
	start, end, both := strings.Cut(text, "..")
	start, end = strings.TrimSpace(start), strings.TrimSpace(end)
	if !both || start == "" && end == "" || start != "" && !isKey(start) || end != "" && !isKey(end) {
		return nil, fault.Usage(cmd, "--range %q is neither a range's number (leat ranges) nor keys as '{\"id\":1}..{\"id\":500}'", text)
	}
	return &leatv1.ReplayRange{Start: start, End: end}, nil
}

// position is how a source's positions look: an LSN, a GTID or a set of them, file:position.
var position = regexp.MustCompile(`^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$|^[0-9A-Fa-f-]{36}:[0-9]|^[0-9]+-[0-9]+-[0-9]+|^[^:\s]+:[0-9]+$`)

// earliest stands in a Place until it is asked for: no source has such a position.
const earliest = "earliest"

func pointOf(cmd *cobra.Command, flag, text string) (*leatv1.Place, error) {
	o, at, err := shell.Place(text)
	switch {
	case text == earliest && flag == "--from":
		return &leatv1.Place{At: &leatv1.Place_Position{Position: earliest}}, nil
	case err == nil && at.IsZero():
		return &leatv1.Place{At: &leatv1.Place_Offset{Offset: o}}, nil
	case err == nil:
		return &leatv1.Place{At: &leatv1.Place_Time{Time: timestamppb.New(at)}}, nil
	case position.MatchString(text):
		return &leatv1.Place{At: &leatv1.Place_Position{Position: text}}, nil
	}
	also := ""
	if flag == "--from" {
		also = ", earliest"
	}
	return nil, fault.Usage(cmd, "%s %q is none of an offset, an event id, a time (2026-11-21T10:15:30Z), a position in the source (0/16B3748, a GTID, file:position)%s", flag, text, also)
}

func (a *commands) replay(ctx context.Context, req *leatv1.ReplayRequest, o replaying) error {
	s, err := a.Connect()
	if err != nil {
		return err
	}
	defer s.Close()
	doing := "replay " + req.GetSubscription()
	if req.GetFrom().GetPosition() == earliest {
		if err := a.earliest(ctx, s, doing, req); err != nil {
			return err
		}
	}
	req.DryRun = true
	r, err := shell.CallWithin(ctx, planTime, s, doing, s.Replay, req)
	if err != nil {
		return err
	}
	if o.dryRun && a.JSON {
		return a.Document(document{Subscription: req.GetSubscription(), Mode: req.GetMode(), DryRun: true, Plan: planDocOf(r.GetPlan())})
	}
	shown := a.Out
	if a.JSON {
		shown = a.Err
	}
	a.showPlan(shown, req, r.GetPlan())
	if o.dryRun {
		return nil
	}
	question := fmt.Sprintf("Deliver %s to %s again?", screen.Plural(r.GetPlan().GetEvents(), "event"), screen.Clean(req.GetSubscription()))
	if err := a.Confirm(ctx, o.yes, question, ""); err != nil {
		return err
	}
	req.DryRun = false
	// What was confirmed is what is done, also where time has passed meanwhile.
	req.From = &leatv1.Place{At: &leatv1.Place_Offset{Offset: r.GetPlan().GetFrom()}}
	if req.GetMode() == "aside" {
		req.To = &leatv1.Place{At: &leatv1.Place_Offset{Offset: r.GetPlan().GetTo()}}
	}
	if r, err = shell.CallWithin(ctx, planTime, s, doing, s.Replay, req); err != nil {
		return err
	}
	if a.JSON {
		doc := document{Subscription: req.GetSubscription(), Mode: req.GetMode(), Plan: planDocOf(r.GetPlan())}
		doc.Job = &shell.JobDocs([]*leatv1.Job{r.GetJob()})[0]
		return a.Document(doc)
	}
	a.Out.Printf("job %s\n", screen.Clean(r.GetJob().GetId()))
	if o.detach {
		return nil
	}
	return a.follow(ctx, s, r.GetJob())
}

// earliest asks where the log begins.
func (a *commands) earliest(ctx context.Context, s *shell.Server, doing string, req *leatv1.ReplayRequest) error {
	st, err := shell.Call(ctx, s, doing, s.Status, &leatv1.StatusRequest{})
	if err != nil {
		return err
	}
	source := ""
	for _, x := range st.GetSubscriptions() {
		if x.GetName() == req.GetSubscription() {
			source = x.GetSource()
		}
	}
	for _, x := range st.GetSources() {
		if x.GetName() == source {
			req.From = &leatv1.Place{At: &leatv1.Place_Offset{Offset: x.GetOldest()}}
			return nil
		}
	}
	return fmt.Errorf("%s: no subscription %q runs here", doing, req.GetSubscription())
}

// document is that of replay --json.
type document struct {
	Subscription string        `json:"subscription"`
	Mode         string        `json:"mode"`
	DryRun       bool          `json:"dry_run"`
	Plan         planDoc       `json:"plan"`
	Job          *shell.JobDoc `json:"job,omitempty"`
}

type planDoc struct {
	From         uint64     `json:"from"`
	To           uint64     `json:"to"`
	Events       uint64     `json:"events"`
	Bytes        uint64     `json:"bytes"`
	Keys         uint64     `json:"keys"`
	KeysAbout    bool       `json:"keys_about,omitempty"`
	Oldest       *time.Time `json:"oldest"`
	Newest       *time.Time `json:"newest"`
	TakesSeconds *float64   `json:"takes_seconds"`
	Notes        []string   `json:"notes,omitempty"`
}

func planDocOf(p *leatv1.ReplayPlan) planDoc {
	return planDoc{p.GetFrom(), p.GetTo(), p.GetEvents(), p.GetBytes(), p.GetKeys(), p.GetKeysAbout(), shell.Moment(p.GetOldest()), shell.Moment(p.GetNewest()),
		shell.MaybeSeconds(p.GetTakes()), p.GetNotes()}
}

func (a *commands) showPlan(to *screen.Screen, req *leatv1.ReplayRequest, p *leatv1.ReplayPlan) {
	to.Printf("%s\n", to.Paint(screen.Bold, "replay "+screen.Clean(req.GetSubscription())+", "+req.GetMode()))
	keys := screen.Count(p.GetKeys())
	if p.GetKeysAbout() {
		keys = "about " + keys
	}
	takes := "not known yet"
	if p.GetTakes() != nil {
		takes = "about " + screen.Duration(p.GetTakes().AsDuration())
	}
	to.Pairs([2]string{"offsets", screen.Number(p.GetFrom()) + " to " + screen.Number(p.GetTo())}, [2]string{"events", screen.Count(p.GetEvents()) + ", " + screen.Size(p.GetBytes())},
		[2]string{"keys", keys}, [2]string{"oldest", shell.Clock(p.GetOldest())}, [2]string{"newest", shell.Clock(p.GetNewest())}, [2]string{"takes", takes})
	for _, n := range p.GetNotes() {
		to.Printf("  %s\n", to.Paint(screen.Yellow, "! "+screen.Clean(n)))
	}
}
