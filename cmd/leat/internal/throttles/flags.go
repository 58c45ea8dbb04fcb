package throttles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	neturl "net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline/flow"
)

// Flags are the flag file and the flag URL of a source: each throttles its reading. They are asked, at most
// once a second, by whoever wants to know: nothing runs meanwhile, and an answer that takes long is not
// waited for. Safe for concurrent use.
type Flags struct {
	file, url string
	// refused is told why the URL's answers do not count, once for each reason.
	refused func(why string)

	mu    sync.Mutex
	asked time.Time
	fromF []flow.Throttle
	fromU []flow.Throttle
	busy  bool
	why   string // the answers do not count; empty: they do
}

const (
	flagEvery = time.Second
	flagTime  = 3 * time.Second
	flagBytes = 1 << 10
)

// flagClient follows no redirects: whoever answers for the URL must not choose what of the inside is asked, and shown
// as the reason of a throttle.
var flagClient = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// NewFlags of a source; c may be nil. Refused is told, once for each reason, why what the URL answers does not count.
func NewFlags(c *config.SourceLoad, refused func(why string)) *Flags {
	if c == nil {
		return &Flags{}
	}
	return &Flags{file: c.FlagFile, url: c.FlagURL, refused: refused}
}

// Now returns what throttles, as far as it is known.
func (f *Flags) Now() []flow.Throttle {
	if f.file == "" && f.url == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.asked) >= flagEvery {
		f.asked = time.Now()
		if f.file != "" {
			f.fromF = readFlag(f.file)
		}
		if f.url != "" && !f.busy {
			f.busy = true
			go f.ask()
		}
	}
	return append(append([]flow.Throttle(nil), f.fromF...), f.fromU...)
}

// readFlag: a file that is there throttles; one that cannot be read too, for somebody has put it there.
func readFlag(path string) []flow.Throttle {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return []flow.Throttle{{Owner: "flag file " + path, Reason: "it cannot be read"}}
	}
	return []flow.Throttle{parseFlag("flag file "+path, string(text[:min(len(text), flagBytes)]))}
}

// parseFlag reads "0.5 why"; a text that does not begin with a number from 0 to 1 is a reason alone.
func parseFlag(owner, text string) flow.Throttle {
	text = strings.Join(strings.Fields(text), " ")
	first, rest, _ := strings.Cut(text, " ")
	if r, err := strconv.ParseFloat(first, 64); err == nil && r >= 0 && r <= 1 {
		return flow.Throttle{Owner: owner, Ratio: r, Reason: rest}
	}
	return flow.Throttle{Owner: owner, Reason: text}
}

// ask asks the URL. One that does not answer leaves what it said before for a while, then throttles nothing: a
// broken monitor must not stop the reading.
func (f *Flags) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), flagTime)
	defer cancel()
	found, err := askFlag(ctx, f.url)
	f.mu.Lock()
	f.busy = false
	was := f.why
	if f.why = ""; err != nil {
		f.why = err.Error()
	} else {
		f.fromU = found
		for i := range f.fromU {
			f.fromU[i].Until = time.Now().Add(10 * flagEvery) // unless it says so again
		}
	}
	is := f.why
	f.mu.Unlock()
	if is != "" && is != was && f.refused != nil {
		f.refused(is)
	}
}

// askFlag asks once. The error, which holds no secrets, says why there is no answer that counts.
func askFlag(ctx context.Context, url string) (found []flow.Throttle, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("flag_url is no URL that can be asked")
	}
	shown := *req.URL // without what may be a secret
	shown.User, shown.RawQuery = nil, ""
	owner := "flag URL " + shown.String()
	r, err := flagClient.Do(req)
	if err != nil {
		if e := new(neturl.Error); errors.As(err, &e) {
			err = e.Err // without the URL
		}
		return nil, fmt.Errorf("%s does not answer: %w", owner, err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(io.LimitReader(r.Body, flagBytes))
	if err != nil {
		return nil, fmt.Errorf("%s breaks off: %w", owner, err)
	}
	switch r.StatusCode {
	case http.StatusOK:
		return []flow.Throttle{parseFlag(owner, string(text))}, nil
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return []flow.Throttle{{Owner: owner, Reason: "it answers " + r.Status}}, nil
	case http.StatusNoContent, http.StatusNotFound:
		return nil, nil
	}
	if r.StatusCode >= 300 && r.StatusCode <= 399 {
		return nil, fmt.Errorf("%s answers %s: redirects are never followed; set the final URL", owner, r.Status)
	}
	return nil, fmt.Errorf("%s answers %s, which says nothing about a throttle", owner, r.Status)
}
