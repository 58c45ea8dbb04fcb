package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/leat-cdc/leat/cmd/leat/internal/cli/screen"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
)

// view is what people see: a panel that is redrawn on a terminal, else a line each second.
type view struct {
	*screen.Screen
	o       *options
	out     io.Writer
	started time.Time
	drawn   int // lines of the panel on the screen
	shown   time.Time
	last    map[string]int64 // counts at the last look
	graph   map[string][]float64

	// The most that was seen.
	held, memory, log int64
	heldNow           int64
	holds             bool // the database says what it holds
	grown             bool // it was said
}

func newView(o *options) *view {
	w := o.Stdout
	if o.JSON {
		w = o.Stderr
	}
	v := &view{Screen: screen.New(w, os.LookupEnv), o: o, out: w, started: time.Now(), last: map[string]int64{}, graph: map[string][]float64{}}
	if !o.JSON {
		v.Terminal, v.Color = o.Terminal, o.Color
	}
	v.Terminal = v.Terminal && v.width() >= narrowest
	return v
}

// narrowest terminal that the panel's lines fit into: one that wraps could not be drawn over.
const narrowest = 76

func (v *view) width() int {
	if f, ok := v.out.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			return w
		}
	}
	return 100
}

func (v *view) say(text string) { v.Printf("%s\n", v.Paint(screen.Dim, text)) }

// explain says what is to be seen.
func (v *view) explain(d *demo, folder string) {
	v.say(fmt.Sprintf("%s, Leat and its log in %s; all of it is removed at the end", d.place.name, folder))
	text, err := os.ReadFile(d.leat.file)
	if err == nil {
		v.Printf("\n%s\n\n%s\n", v.Paint(screen.Bold, "leat.yaml"), indent(string(text)))
	}
	v.Printf("%s\n\n", v.Paint(screen.Bold, "What you see"))
	v.Printf("  About %s changes a second to a filesystem's metadata: files and folders are\n", screen.Count(v.o.Rate))
	v.Printf("  created, renamed, moved between namespaces, deleted; whole folders in one\n")
	v.Printf("  transaction (seed %d: each demo makes the same changes). %s namespaces were there\n", v.o.seed, screen.Count(existing))
	v.Printf("  before Leat: its snapshot brings them, while the changes go on. Three subscribers\n")
	v.Printf("  each keep a copy of the tables by the events alone. \"slow\" takes %v for a request\n", slowDelay)
	v.Printf("  and answers 503 for some seconds: it falls behind, waits and recovers, while\n")
	v.Printf("  nobody else is moved and the source does not wait. In the middle, table files\n")
	v.Printf("  gets a column (ALTER TABLE) while it is written to.\n")
	end := "Ctrl-C ends the changes"
	if v.o.Seconds > 0 {
		end = fmt.Sprintf("The changes end after %d s", v.o.Seconds)
	}
	v.Printf("  %s; then everybody catches up, and each copy is\n  compared with the source, row for row.\n\n", end)
	at := ""
	if d.leat.addr != "127.0.0.1:7070" {
		at = " --addr " + d.leat.addr
	}
	program := "leat"
	if _, err := exec.LookPath(program); err != nil {
		program = os.Args[0]
	}
	v.Printf("  Meanwhile try  %s status%s\n                 %s tail%s files --table %s.folders\n                 curl -N http://%s/v1/subscriptions/search/events\n\n", program, at, program, at, space, d.leat.addr)
	v.started = time.Now()
	v.shown = v.started
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

// look takes the state and shows it, at most once a second; idle tells that Leat has nothing left to deliver.
func (v *view) look(ctx context.Context, d *demo, ended time.Time) (idle bool, err error) {
	st, err := d.leat.status(ctx)
	if err != nil {
		return false, fmt.Errorf("ask leat for its status: %w", err)
	}
	idle = len(st.Subscriptions) == len(d.subscribers)
	states := map[string]*leatv1.SubscriptionStatus{}
	for _, s := range st.Subscriptions {
		states[s.Name] = s
		idle = idle && s.LagEvents == 0
	}
	for _, s := range d.subscribers {
		s.behind = max(s.behind, states[s.name].GetLagEvents())
	}
	for _, s := range st.Sources {
		for _, n := range s.Notices {
			if n.Kind == "quarantined" {
				return false, fmt.Errorf("table %s does not enter the log: %s: %s", n.Table, n.Reason, n.Cure)
			}
		}
	}
	v.memory = max(v.memory, int64(st.MemoryUsed))
	since := time.Since(v.shown)
	if since < 900*time.Millisecond {
		return idle, nil
	}
	v.shown = time.Now()
	if n, ok := d.place.held(ctx); ok {
		v.heldNow, v.held, v.holds = n, max(v.held, n), true
	}
	rates := map[string]float64{"": v.rate("", d.work.Rows.Load(), since)}
	for _, s := range d.subscribers {
		n, _ := s.counts()
		rates[s.name] = v.rate(s.name, n, since)
	}
	var source leatv1.SourceStatus
	if len(st.Sources) > 0 {
		source.LogBytes, source.State, source.Reason, source.Next = st.Sources[0].LogBytes, st.Sources[0].State, st.Sources[0].Reason, st.Sources[0].Next
	}
	v.log = max(v.log, int64(source.LogBytes))
	if v.Terminal {
		v.panel(d, &source, states, rates, ended)
	} else {
		v.line(d, &source, states, rates, ended)
	}
	return idle, nil
}

// points of a sparkline.
const points = 20

func (v *view) rate(name string, n int64, since time.Duration) float64 {
	r := float64(n-v.last[name]) / since.Seconds()
	v.last[name] = n
	g := append(v.graph[name], r)
	v.graph[name] = g[max(0, len(g)-points):]
	return r
}

var bars = []rune("▁▂▃▄▅▆▇█")

// spark draws the newest rates; all of a panel have one scale.
func spark(values []float64, most float64) string {
	out := []rune(strings.Repeat(" ", points-len(values)))
	for _, x := range values {
		i := 0
		if most > 0 {
			i = int(x / most * float64(len(bars)-1))
		}
		out = append(out, bars[min(max(i, 0), len(bars)-1)])
	}
	return string(out)
}

func (v *view) clock(ended time.Time) string {
	if !ended.IsZero() {
		return fmt.Sprintf("catching up, %ds", int(time.Since(ended).Seconds()))
	}
	now := int(time.Since(v.started).Seconds() + 0.5)
	if v.o.Seconds > 0 {
		return fmt.Sprintf("%ds of %ds", min(now, v.o.Seconds), v.o.Seconds)
	}
	return fmt.Sprintf("%ds", now)
}

var stateStyle = map[string]screen.Style{"running": screen.Green, "retrying": screen.Yellow, "waiting": screen.Yellow, "blocked": screen.Red, "stopped": screen.Red, "paused": screen.Yellow}

func (v *view) panel(d *demo, source *leatv1.SourceStatus, states map[string]*leatv1.SubscriptionStatus, rates map[string]float64, ended time.Time) {
	width := v.width()
	var most float64
	for _, g := range v.graph {
		for _, x := range g {
			most = max(most, x)
		}
	}
	var text bytes.Buffer
	s := screen.New(&text, os.LookupEnv)
	s.Color = v.Color
	held := ""
	if v.holds {
		held = ", the slot holds " + screen.Size(uint64(max(0, v.heldNow)))
	}
	if d.work.Typed.Load() {
		held += " · " + grown
	}
	line := fmt.Sprintf("%s · %s changes · log %s%s", v.clock(ended), screen.Count(d.work.Rows.Load()), screen.Size(source.LogBytes), held)
	s.Printf("%s\n\n", s.Paint(screen.Bold, screen.Shorten(line, width-1)))
	t := screen.NewTable("", "STATE", ">EVENTS/S", "", ">BEHIND", ">LAG")
	t.Row(screen.Text("source"), screen.Cell{Text: source.State, Style: style(source.State == "streaming")}, screen.Text(screen.Rate(rates[""])),
		screen.Cell{Text: spark(v.graph[""], most), Style: screen.Cyan}, screen.Text(""), screen.Text(""))
	if source.Reason != "" {
		t.Note(screen.Yellow, screen.Shorten(source.Reason, width-4))
	}
	for _, sub := range d.subscribers {
		st := states[sub.name]
		t.Row(screen.Text(sub.name), screen.Cell{Text: st.GetState(), Style: stateStyle[st.GetState()]}, screen.Text(screen.Rate(rates[sub.name])),
			screen.Cell{Text: spark(v.graph[sub.name], most), Style: screen.Cyan}, screen.Text(screen.Count(st.GetLagEvents())), screen.Text(screen.Duration(st.GetLag().AsDuration())))
		if why := reason(st); why != "" {
			t.Note(screen.Yellow, screen.Shorten(why, width-4))
		}
	}
	s.Print(t)
	if v.drawn > 0 {
		v.Printf("\x1b[%dF", v.drawn) // to the first column: Ctrl-C leaves ^C behind
	}
	v.drawn = bytes.Count(text.Bytes(), []byte{'\n'})
	v.Printf("%s\x1b[J", strings.ReplaceAll(text.String(), "\n", "\x1b[K\n"))
}

func style(good bool) screen.Style {
	if good {
		return screen.Green
	}
	return screen.Yellow
}

func reason(st *leatv1.SubscriptionStatus) string {
	why := screen.Clean(st.GetReason())
	if st.GetState() == "running" {
		return ""
	}
	return why
}

// grown says what happens in the middle.
const grown = "files got a column: media_type"

func (v *view) line(d *demo, source *leatv1.SourceStatus, states map[string]*leatv1.SubscriptionStatus, rates map[string]float64, ended time.Time) {
	text := fmt.Sprintf("%-10s source %s, log %s", v.clock(ended), screen.Rate(rates[""]), screen.Size(source.LogBytes))
	if source.State != "streaming" {
		text += " (" + source.State + ": " + screen.Clean(source.Reason) + ")"
	}
	for _, sub := range d.subscribers {
		st := states[sub.name]
		text += fmt.Sprintf(" | %s %s, behind %s (%s)", sub.name, screen.Rate(rates[sub.name]), screen.Count(st.GetLagEvents()), screen.Duration(st.GetLag().AsDuration()))
		if st.GetState() != "running" {
			text += " " + st.GetState()
		}
		if why := reason(st); why != "" {
			text += ": " + screen.Shorten(why, 70)
		}
	}
	if d.work.Typed.Load() && !v.grown {
		v.grown = true
		text += " | " + grown
	}
	v.Printf("%s\n", text)
}

// settling: the workload has ended.
func (v *view) settling(d *demo) {
	if !v.Terminal {
		v.Printf("%s changes made; everybody catches up\n", screen.Count(d.work.Rows.Load()))
	}
}

// end of the live part.
func (v *view) end() { v.Printf("\n") }
