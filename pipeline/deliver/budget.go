package deliver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leat-cdc/leat/pipeline/flow"
)

// Memory is what all subscriptions of a process hold together at most: see [flow.Memory]. Safe for concurrent use.
type Memory struct {
	mu   sync.Mutex
	tree *flow.Memory
}

// NewMemory returns a budget of that many bytes.
func NewMemory(total int64) *Memory { return &Memory{tree: flow.NewMemory(total)} }

// Used is how many bytes of batches are held, and how many readers wait for some.
func (m *Memory) Used() (bytes int64, waiting int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tree.Used(), m.tree.Waiting()
}

// holding is a session's part of a Memory.
type holding struct {
	m     *Memory
	flow  *flow.Share
	asked chan struct{} // give back what was read ahead

	mu      sync.Mutex // of budgets; taken before m.mu, never within it
	budgets []*budget
}

func (m *Memory) hold(c *Config, asked chan struct{}) *holding {
	s := &holding{m: m, asked: asked}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.flow = m.tree.Share(c.Credit, c.Budget, func() { signal(s.asked) })
	return s
}

// close is for the one who has given all back.
func (s *holding) close() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for _, b := range s.budgets {
		b.account.Leave()
	}
	s.flow.Close()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// budget bounds the memory of batches that one reader of the session holds. A batch is counted once, whatever
// waits for it.
type budget struct {
	share   *holding
	account *flow.Account
	used    atomic.Int64
	free    chan struct{} // wakes the reader
}

func (s *holding) budget(limit int64) *budget {
	b := &budget{share: s, free: make(chan struct{}, 1)}
	b.account = s.flow.Account(limit, func() { signal(b.free) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budgets = append(s.budgets, b)
	return b
}

func (b *budget) lock() func() {
	b.share.m.mu.Lock()
	return b.share.m.mu.Unlock
}

// errNoRoom: the batch was not taken, or none may be for now; reading goes on anew once there is room.
var errNoRoom = errors.New("no memory for the batch")

// inHand is for how long a reader that has no room keeps the batch, and what the log has read ahead for it, all the
// same: for less they are not worth reading again.
const inHand = time.Second

// wait returns once the reader may read on: so at most one batch is taken beyond its own limit. patient: however
// long it takes; else errNoRoom comes when it takes long.
func (b *budget) wait(ctx context.Context, patient bool) error {
	var late <-chan time.Time
	for {
		unlock := b.lock()
		room := b.account.Room()
		unlock()
		if room {
			return nil
		}
		if late == nil && !patient {
			t := time.NewTimer(inHand)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-b.free:
		case <-late:
			return errNoRoom
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// take waits until n bytes are there, and takes them. patient: for as long as it needs; else errNoRoom comes
// when it takes long, and await goes on waiting, at the same place in line.
func (b *budget) take(ctx context.Context, n int64, patient bool) error {
	var late <-chan time.Time
	for {
		unlock := b.lock()
		ok := b.account.Take(n) || b.account.Wait(n) && b.account.Take(n)
		unlock()
		if ok {
			b.used.Add(n)
			return nil
		}
		if late == nil && !patient {
			t := time.NewTimer(inHand)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-b.free:
		case <-late:
			return errNoRoom
		case <-ctx.Done():
			b.leave()
			return ctx.Err()
		}
	}
}

// await waits for what take stands in line for.
func (b *budget) await(ctx context.Context) error {
	for {
		unlock := b.lock()
		waits := b.account.Waits()
		unlock()
		if !waits {
			return nil
		}
		select {
		case <-b.free:
		case <-ctx.Done():
			b.leave()
			return ctx.Err()
		}
	}
}

// leave gives up what was waited for.
func (b *budget) leave() {
	defer b.lock()()
	b.account.Leave()
}

func (b *budget) give(n int64, moved bool) {
	unlock := b.lock()
	b.account.Give(n, moved)
	unlock()
	b.used.Add(-n)
	b.share.mu.Lock()
	defer b.share.mu.Unlock()
	for _, o := range b.share.budgets {
		signal(o.free)
	}
}
