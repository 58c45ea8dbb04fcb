package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leat-cdc/leat/internal/servers"
	"github.com/leat-cdc/leat/internal/servers/servertest"
)

// refusal is something wrong that somebody asks of a server, by the command line and over the API.
type refusal struct {
	name string
	cli  []string // nil: there is no command for it
	rpc  string
	body string
	say  string // what both answer
}

// TestBadInputIsRefused walks what operators and clients get wrong on the running program: each is refused with a
// clear error by the command and by the API, nothing is changed, and each attempt stands in the audit log.
func TestBadInputIsRefused(t *testing.T) {
	t.Parallel()
	db := servertest.Postgres(t, servers.PostgresOptions{})
	conn := openDB(t, db.URL, "CREATE TABLE files (id bigint PRIMARY KEY, n bigint)")
	var followed atomic.Bool
	private := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) })) // stands for what only this machine reaches
	defer private.Close()
	monitor := httptest.NewServer(http.RedirectHandler(private.URL, http.StatusFound))
	defer monitor.Close()
	r, toHook := newReceiver(t)
	dir, addr := t.TempDir(), freeAddr(t)
	writeConfig(t, dir, fmt.Sprintf("data: ./data\nlisten: %s\nsources:\n  files:\n    postgres: {url: '%s', slot: %s}\n    tables: ['public.*']\n    load: {flag_url: '%s/slow'}\n"+
		"subscriptions:\n  a: {source: files, deliver: {%s}}\n  p: {source: files, deliver: {pull: {lease: 1s}}}\n", addr, db.URL, db.Name, monitor.URL, toHook))
	p := startLeat(t, leatBinary(t), dir)
	p.ready()
	execAll(t, conn, "INSERT INTO files SELECT i, 1 FROM generate_series(1, 30) i")
	until(t, p, "the events", func() bool { return r.count() == 30 && p.delivered(t, addr, "a") == 30 })
	url := "http://" + addr
	run := func(args ...string) (string, int) {
		cmd := exec.Command(leatBinary(t), append(args, "--addr", url, "-c", filepath.Join(dir, "leat.yaml"))...)
		out, _ := cmd.CombinedOutput() // the code says it
		return string(out), cmd.ProcessState.ExitCode()
	}
	for _, key := range []string{`{"id":10}`, `{"id":20}`} {
		if out, code := run("ranges", "split", "files", "--at", key); code != 0 {
			t.Fatalf("split at %s: %s", key, out)
		}
	}
	lease, first := p.lease(t, url)
	wrong := func(mode, more, from, to, filter string) refusal {
		x := refusal{name: "replay " + mode + more, rpc: "AdminService/Replay", cli: []string{"replay", "a", "--" + mode, "--yes", "--from", from}}
		x.body = fmt.Sprintf(`{"subscription":"a","mode":"%s","from":{"offset":"%s"}`, mode, from)
		if to != "" {
			x.cli, x.body = append(x.cli, "--to", to), x.body+fmt.Sprintf(`,"to":{"offset":"%s"}`, to)
		}
		if filter != "" {
			x.cli, x.body = append(x.cli, "--filter", filter), x.body+fmt.Sprintf(`,"scope":{"filter":"%s"}`, filter)
		}
		x.body += "}"
		return x
	}
	at := func(n uint64) string { return fmt.Sprint(first + n) }
	said := func(x refusal, say string) refusal { x.say = say; return x }
	all := []refusal{
		{"split at a key of another range", []string{"ranges", "split", "files", "--range", "1", "--at", `{"id":15}`}, "AdminService/SplitRange", `{"source":"files","range":"1","key":"{\"id\":15}"}`, "the key is not in range 1"},
		{"merge of ranges that are not neighbours", []string{"ranges", "merge", "files", "1", "4"}, "AdminService/MergeRanges", `{"source":"files","ranges":["1","4"]}`, "are not neighbours: range 3 lies between"},
		{"throttle with ratio 2", []string{"throttle", "a", "--ratio", "2"}, "AdminService/Throttle", `{"name":"a","ratio":2}`, "from 0 (stopped) to 1"},
		{"redrive of what is not parked", []string{"redrive", "a", "--key", "[7]"}, "AdminService/Redrive", `{"subscription":"a","keys":["[7]"]}`, "no parked keys"},
		{"ack of an expired lease", nil, "SubscriberService/Ack", `{"subscription":"p","all":true,"lease":"` + lease + `"}`, "expired, neither completed nor extended within 1s"},
		said(wrong("aside", ", ends before it starts", at(20), at(10), ""), "before or where it starts"),
		said(wrong("aside", ", beyond the tail", at(1_000_000), "", ""), "beyond the end of the log"),
		said(wrong("aside", ", ends beyond the tail", at(1), at(1_000_000), ""), "beyond the end of the log"),
		said(wrong("rewind", ", beyond the tail", at(1_000_000), "", ""), "beyond the end of the log"),
		said(wrong("rewind", ", filter", at(1), "", "after.n ="), "filter: line 1"),
	}
	before := p.standing(t, url)
	for _, x := range all {
		audited := len(p.audit(t, url))
		if x.cli != nil {
			if out, code := run(x.cli...); code != 1 && code != 2 || !strings.Contains(out, x.say) || !strings.HasPrefix(out, "leat: ") {
				t.Errorf("%s: exit code %d, want 1 or 2 and %q: %s", x.name, code, x.say, out)
			}
			audited++
		}
		if code, text := post(t, url, x.rpc, x.body); code < 400 || code > 499 || !strings.Contains(text, x.say) {
			t.Errorf("%s: %d, want %q: %s", x.name, code, x.say, text)
		}
		list := p.audit(t, url)
		if len(list) != audited+1 || list[len(list)-1].Outcome != "refused" || !strings.Contains(list[len(list)-1].Detail, x.say) {
			t.Errorf("%s: not in the audit log: %v", x.name, list)
		}
	}
	if after := p.standing(t, url); after != before {
		t.Errorf("refused, but changed:\n%s\nwas\n%s", after, before)
	}
	until(t, p, "the flag URL in the audit log", func() bool {
		for _, e := range p.audit(t, url) {
			if e.Target == "files" && e.Actor == "flag URL" && e.Outcome == "refused" && strings.Contains(e.Detail, "302 Found: redirects are never followed") {
				return true
			}
		}
		return false
	})
	if followed.Load() {
		t.Errorf("a redirect was followed:\n%s", p.log())
	}
}

// lease takes one event of p and waits until the lease is over; first is the log's first offset.
func (p *process) lease(t *testing.T, url string) (name string, first uint64) {
	t.Helper()
	var doc struct {
		Lease  string
		Events struct {
			Events []struct {
				Offset uint64 `json:",string"`
			}
		}
	}
	_, text := post(t, url, "SubscriberService/Receive", `{"subscription":"p","maxEvents":1}`)
	if err := json.Unmarshal([]byte(text), &doc); err != nil || doc.Lease == "" || len(doc.Events.Events) != 1 {
		t.Fatalf("receive: %v %s", err, text)
	}
	until(t, p, "the lease's end", func() bool {
		_, again := post(t, url, "SubscriberService/Receive", `{"subscription":"p","maxEvents":1,"wait":"0s"}`)
		return strings.Contains(again, fmt.Sprintf(`"offset":"%d"`, doc.Events.Events[0].Offset))
	})
	return doc.Lease, doc.Events.Events[0].Offset
}

// standing is what a refusal must leave as it is.
func (p *process) standing(t *testing.T, url string) string {
	t.Helper()
	_, ranges := post(t, url, "AdminService/Ranges", `{"source":"files","lineage":true}`)
	_, jobs := post(t, url, "AdminService/Jobs", `{"ended":true}`)
	_, parked := post(t, url, "AdminService/Parked", `{"subscription":"a"}`)
	var doc struct {
		Subscriptions []struct {
			Name, State string
			Throttles   []any
			Cursor      any
		}
	}
	_, text := post(t, url, "AdminService/Status", `{}`)
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(ranges, jobs, parked, doc)
}

type auditEntry struct{ Actor, Action, Target, Outcome, Detail string }

// audit is the audit log, the oldest first.
func (p *process) audit(t *testing.T, url string) []auditEntry {
	t.Helper()
	var doc struct{ Entries []auditEntry }
	code, text := post(t, url, "AdminService/AuditLog", `{}`)
	if err := json.Unmarshal([]byte(text), &doc); err != nil || code != 200 {
		t.Fatalf("audit log: %d %v %s", code, err, text)
	}
	return doc.Entries
}

// post calls a procedure as any client may, by JSON.
func post(t *testing.T, url, rpc, body string) (code int, text string) {
	t.Helper()
	resp, err := http.Post(url+"/leat.v1."+rpc, "application/json", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}
