package app

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"github.com/leat-cdc/leat/schemas/envelope/leatv1"
	"github.com/leat-cdc/leat/schemas/envelope/leatv1/leatv1connect"
)

// A stretch of the log comes in pages, with the subscription's filter and columns, narrowed by ranges and tables,
// whatever the subscription's sink; fifty clients at once get the same. What cannot be is refused.
func TestFetch(t *testing.T) {
	t.Parallel()
	db, h, dir := newPG(t), newHook(t), t.TempDir()
	db.exec(t, "CREATE TABLE users (id bigint PRIMARY KEY)")
	in := install(t, dir, db.yaml("a: {source: files, filter: 'table != \"public.users\" || op == \"insert\"', columns: {public.files: ['!name']}, deliver: {"+toHook(h)+"}}"))
	in.streaming(t, "files")
	db.exec(t, "INSERT INTO files SELECT i, 'name' FROM generate_series(1, 40) i", "INSERT INTO users VALUES (1)", "DELETE FROM users")
	h.waits(t, 41)
	c := leatv1connect.NewSubscriberServiceClient(in.http, "http://"+in.addr)
	fetch := func(r *leatv1.FetchRequest) (*leatv1.FetchResponse, error) {
		if r.Subscription == "" {
			r.Subscription = "a"
		}
		resp, err := c.Fetch(t.Context(), connect.NewRequest(r))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	// keys of the events of all pages
	pages := func(r *leatv1.FetchRequest) (keys []string, n int) {
		t.Helper()
		for {
			m, err := fetch(r)
			if err != nil {
				t.Error(err)
				return
			}
			names := map[uint32]string{}
			for _, x := range m.Events.Tables {
				names[x.Id] = x.Name
				if slices.ContainsFunc(x.Columns, func(c *leatv1.Column) bool { return c.Name == "name" }) {
					t.Error("a column that the subscription may not see")
				}
			}
			for _, e := range m.Events.Events {
				keys = append(keys, fmt.Sprint(names[e.Table], e.Key[0].GetInteger()))
			}
			if n++; m.End {
				return keys, n
			}
			r.From = m.Next
		}
	}
	all, n := pages(&leatv1.FetchRequest{})
	if len(all) != 41 || all[0] != "files1" || all[40] != "users1" || n != 1 {
		t.Fatalf("%d events in %d pages: %v", len(all), n, all)
	}
	if got, n := pages(&leatv1.FetchRequest{Limit: 7}); !slices.Equal(got, all) || n != 6 {
		t.Errorf("%d pages by count: %v", n, got)
	}
	if got, n := pages(&leatv1.FetchRequest{MaxBytes: 1}); !slices.Equal(got, all) || n < 41 {
		t.Errorf("%d pages by bytes: %v", n, got)
	}
	if got, _ := pages(&leatv1.FetchRequest{Tables: []string{"public.users"}}); !slices.Equal(got, all[40:]) {
		t.Errorf("by table: %v", got)
	}
	if _, err := in.admin.SplitRange(t.Context(), connect.NewRequest(&leatv1.SplitRangeRequest{Source: "files", Table: "public.files", Key: `{"id":31}`})); err != nil {
		t.Fatal(err)
	}
	ranges, err := in.admin.Ranges(t.Context(), connect.NewRequest(&leatv1.RangesRequest{Source: "files"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range ranges.Msg.Ranges {
		if r.StartText != "" {
			if got, _ := pages(&leatv1.FetchRequest{Ranges: []uint64{r.Id}}); !slices.Equal(got, all[30:40]) {
				t.Errorf("by range: %v", got)
			}
		}
	}
	fetchesAtOnce(t, pages, all)
	next := in.source(t, "files").Next
	for _, x := range []struct {
		r    *leatv1.FetchRequest
		want string
		code connect.Code
	}{
		{&leatv1.FetchRequest{Subscription: "nobody"}, "no subscription", connect.CodeNotFound},
		{&leatv1.FetchRequest{From: 5, To: 5}, "before or where it starts", connect.CodeInvalidArgument},
		{&leatv1.FetchRequest{From: 5}, "history is there from", connect.CodeOutOfRange},
		{&leatv1.FetchRequest{From: next + 1}, "beyond the end", connect.CodeInvalidArgument},
		{&leatv1.FetchRequest{To: next + 1}, "beyond the end", connect.CodeInvalidArgument},
		{&leatv1.FetchRequest{Limit: 10_001}, "at most 10000", connect.CodeInvalidArgument},
		{&leatv1.FetchRequest{MaxBytes: 1 << 30}, "at most 8388608", connect.CodeInvalidArgument},
		{&leatv1.FetchRequest{Ranges: []uint64{99}}, "no range 99", connect.CodeInvalidArgument},
		{&leatv1.FetchRequest{Ranges: make([]uint64, 101)}, "at most 100", connect.CodeInvalidArgument},
		{&leatv1.FetchRequest{Tables: []string{"x"}}, "x", connect.CodeInvalidArgument},
	} {
		if _, err := fetch(x.r); connect.CodeOf(err) != x.code || !strings.Contains(fmt.Sprint(err), x.want) {
			t.Errorf("%v: %v, want %v with %q", x.r, err, x.code, x.want)
		}
	}
}

// fetchesAtOnce: fifty clients get what one gets.
func fetchesAtOnce(t *testing.T, pages func(*leatv1.FetchRequest) ([]string, int), all []string) {
	t.Helper()
	var clients sync.WaitGroup
	var good atomic.Int32
	for i := range 50 {
		clients.Go(func() {
			if got, _ := pages(&leatv1.FetchRequest{Limit: uint32(5 + i%3)}); slices.Equal(got, all) {
				good.Add(1)
			}
		})
	}
	clients.Wait()
	if n := good.Load(); n != 50 {
		t.Errorf("%d of 50 clients got all", n)
	}
}
