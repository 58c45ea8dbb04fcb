package throttles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/leat-cdc/leat/cmd/leat/internal/config"
	"github.com/leat-cdc/leat/pipeline/flow"
)

// Flags are the flag file and the flag URL of a source: each throttles its reading. They are asked, at most
// once a second, by whoever wants to know: nothing runs meanwhile, and an answer that takes long is not
// waited for. Safe for concurrent use.
type Flags struct {
	file, url string
	asker     *asker
	// refused is told why the URL's answers do not count, once for each reason and at most once a minute.
	refused func(why string)

	mu    sync.Mutex
	asked time.Time
	fromF []flow.Throttle
	fromU []flow.Throttle
	busy  bool
	// reading is the file's answer that is waited for; nil: none.
	reading chan []flow.Throttle
	told    string // why the URL's answers do not count, as it was told last; empty: they do
	toldAt  time.Time
}

const (
	flagEvery = time.Second
	flagTime  = 3 * time.Second
	flagBytes = 1 << 10
	flagWait  = 100 * time.Millisecond // for the file: a disk that hangs does not stop whoever asks
	tellEvery = time.Minute
)

// asker asks the flag URLs of a Set, with connections of its own.
type asker struct {
	client *http.Client
	ctx    context.Context // ends all that is asked
	cancel context.CancelFunc

	mu    sync.Mutex // none is asked once stop has begun to wait
	asked sync.WaitGroup
}

// newAsker follows no redirects: whoever answers for the URL must not choose what of the inside is asked, and shown
// as the reason of a throttle.
func newAsker() *asker {
	a := &asker{client: &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// begin runs f unless all was stopped.
func (a *asker) begin(f func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		return false
	}
	a.asked.Go(f)
	return true
}

func (a *asker) stop() {
	a.mu.Lock()
	a.cancel()
	a.mu.Unlock()
	a.asked.Wait()
	a.client.CloseIdleConnections()
}

// Flags of a source; c may be nil. Refused is told, once for each reason and at most once a minute, why what the URL
// answers does not count.
// Once the set is stopped no URL is asked.
func (t *Set) Flags(c *config.SourceLoad, refused func(why string)) *Flags {
	if c == nil {
		return &Flags{}
	}
	return &Flags{file: c.FlagFile, url: c.FlagURL, asker: t.asker, refused: refused}
}

// Now returns what throttles, as far as it is known.
func (f *Flags) Now() []flow.Throttle {
	if f.file == "" && f.url == "" {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if due := time.Since(f.asked) >= flagEvery; due {
		f.asked = time.Now()
		if f.file != "" && f.reading == nil {
			f.readFile()
		}
		if f.url != "" && !f.busy {
			f.busy = f.asker.begin(f.ask)
		}
	}
	select {
	case f.fromF = <-f.reading:
		f.reading = nil
	default:
	}
	return append(append([]flow.Throttle(nil), f.fromF...), f.fromU...)
}

// readFile reads the file. One that does not answer in time leaves what it said before until it does.
func (f *Flags) readFile() {
	answer := make(chan []flow.Throttle, 1)
	go func() { answer <- readFlag(f.file) }()
	late := time.NewTimer(flagWait)
	defer late.Stop()
	select {
	case f.fromF = <-answer:
	case <-late.C:
		f.reading = answer
	}
}

// readFlag: a file that is there throttles; one that cannot be read too, for somebody has put it there.
func readFlag(path string) []flow.Throttle {
	text, err := readText(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return []flow.Throttle{{Owner: "flag file " + path, Reason: "it cannot be read"}}
	}
	return []flow.Throttle{parseFlag("flag file "+path, string(text))}
}

// readText reads the beginning of a regular file; a pipe has no end.
func readText(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would wait for who writes
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if is, err := file.Stat(); err != nil {
		return nil, err
	} else if !is.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return io.ReadAll(io.LimitReader(file, flagBytes))
}

// valid is text as status can show it: Protobuf sends no other.
func valid(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

// parseFlag reads "0.5 why"; a text that does not begin with a number from 0 to 1 is a reason alone.
func parseFlag(owner, text string) flow.Throttle {
	text = strings.Join(strings.Fields(valid(text)), " ")
	first, rest, _ := strings.Cut(text, " ")
	if r, err := strconv.ParseFloat(first, 64); err == nil && r >= 0 && r <= 1 {
		return flow.Throttle{Owner: owner, Ratio: r, Reason: rest}
	}
	return flow.Throttle{Owner: owner, Reason: text}
}

// ask asks the URL. One that does not answer leaves what it said before for a while, then throttles nothing: a
// broken monitor must not stop the reading.
func (f *Flags) ask() {
	ctx, cancel := context.WithTimeout(f.asker.ctx, flagTime)
	defer cancel()
	found, err := f.asker.ask(ctx, f.url)
	f.mu.Lock()
	f.busy = false
	why := ""
	if err != nil {
		why = err.Error()
	} else {
		f.told, f.fromU = "", found
		for i := range f.fromU {
			f.fromU[i].Until = time.Now().Add(10 * flagEvery) // unless it says so again
		}
	}
	tell := why != "" && why != f.told && time.Since(f.toldAt) >= tellEvery && f.refused != nil && f.asker.ctx.Err() == nil
	if tell {
		f.told, f.toldAt = why, time.Now()
	}
	f.mu.Unlock()
	if tell {
		f.refused(why)
	}
}

// cause is the innermost error. The others hold the URL, and ports of ours that are others each time.
func cause(err error) error {
	if e := new(net.DNSError); errors.As(err, &e) {
		return fmt.Errorf("the address of %s is not found", e.Name)
	}
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	return err
}

// ask asks once. The error, which holds no secrets, says why there is no answer that counts.
func (a *asker) ask(ctx context.Context, url string) (found []flow.Throttle, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("flag_url is no URL that can be asked")
	}
	shown := *req.URL // without what may be a secret
	shown.User, shown.RawQuery = nil, ""
	owner := "flag URL " + shown.String()
	r, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s does not answer: %w", owner, cause(err))
	}
	defer r.Body.Close()
	text, err := io.ReadAll(io.LimitReader(r.Body, flagBytes))
	if err != nil {
		return nil, fmt.Errorf("%s breaks off: %w", owner, cause(err))
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
