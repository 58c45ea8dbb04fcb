// Package workload changes a filesystem's metadata in a database: namespaces, folders and files that are made, renamed,
// moved and removed. It decides what changes and how fast; it knows the tables by their names only.
package workload

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	workers = 4
	// namespaces of each worker: they are also the routing keys.
	namespacesEach = 16
	foldersEach    = 2    // of a namespace, at first
	mostFiles      = 4000 // of a worker; then as many go as come
)

// Session changes rows. Statements have ? as placeholders and {now} for the time.
type Session interface {
	Begin(ctx context.Context) error
	Exec(ctx context.Context, statement string, args ...any) (rows int64, err error)
	Commit(ctx context.Context) error
	Close(ctx context.Context) error
}

// Workload changes the filesystem. What it does depends on the seed alone; only how the workers' transactions
// interleave is the machine's.
type Workload struct {
	Rows         atomic.Int64 // changed and committed
	Moves        atomic.Int64 // of those, changes of key: two events each
	Transactions atomic.Int64
	Largest      atomic.Int64 // rows of one transaction
	Typed        atomic.Bool  // table files has a column media_type by now, which is to be filled
}

// Events that the log must have got.
func (w *Workload) Events() int64 { return w.Rows.Load() + w.Moves.Load() }

// Run works until ctx ends; what is under way is committed. rate is in rows per second; open gives each worker a
// session of its own.
func (w *Workload) Run(ctx context.Context, open func(context.Context) (Session, error), rate int, seed uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			if errs[i] = w.work(ctx, open, i, float64(rate)/workers, seed); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("change the filesystem: %w", err)
	}
	return nil
}

func (w *Workload) work(ctx context.Context, open func(context.Context) (Session, error), n int, rate float64, seed uint64) (err error) {
	whole := context.WithoutCancel(ctx) // transactions are finished
	s, err := open(whole)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(whole)) }()
	k := &worker{rng: rand.New(rand.NewPCG(seed, uint64(n))), session: s, n: int64(n), typed: &w.Typed}
	next := time.Now()
	for step := 0; ctx.Err() == nil; step++ {
		if err := w.transact(whole, k, step); err != nil {
			return err
		}
		next = next.Add(time.Duration(float64(k.rows) / rate * float64(time.Second)))
		wait := time.Until(next)
		if wait < -time.Second { // the database cannot: no burst when it can again
			next = time.Now()
		}
		if wait > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	}
	return nil
}

func (w *Workload) transact(ctx context.Context, k *worker, step int) error {
	k.rows, k.moves = 0, 0
	if err := k.session.Begin(ctx); err != nil {
		return err
	}
	if err := k.step(ctx, step); err != nil {
		return err
	}
	if err := k.session.Commit(ctx); err != nil {
		return err
	}
	w.Rows.Add(k.rows)
	w.Moves.Add(k.moves)
	w.Transactions.Add(1)
	for most := w.Largest.Load(); k.rows > most && !w.Largest.CompareAndSwap(most, k.rows); most = w.Largest.Load() {
	}
	return nil
}

// worker has namespaces of its own and knows what is in them.
type worker struct {
	rng     *rand.Rand
	session Session
	n       int64
	typed   *atomic.Bool
	lastID  int64
	spaces  []int64
	folders []*folder
	files   []*file

	rows, moves int64 // of the transaction
}

type folder struct {
	id, namespace int64
	path          string
	files         int
}

type file struct {
	id, namespace int64
	in            *folder
	name          string
	at            int // in worker.files
}

func (f *file) mediaType() string {
	return []string{"text/plain", "image/jpeg", "application/pdf"}[f.id%3]
}

func (f *file) path() string { return f.in.path + "/" + f.name }

func (k *worker) id() int64 {
	k.lastID++
	return k.lastID*workers + k.n
}

func (k *worker) exec(ctx context.Context, statement string, args ...any) error {
	n, err := k.session.Exec(ctx, statement, args...)
	k.rows += n
	return err
}

// step is one transaction: a namespace with its folders at first, then the life of a filesystem.
func (k *worker) step(ctx context.Context, step int) error {
	if step < namespacesEach {
		return k.newNamespace(ctx)
	}
	if len(k.files) < 50 {
		return k.some(ctx, 4, k.create)
	}
	switch p := k.rng.IntN(1000); {
	case p < 300 && len(k.files) < mostFiles:
		return k.some(ctx, 4, k.create)
	case p < 560:
		return k.some(ctx, 3, k.write)
	case p < 700:
		return k.rename(ctx)
	case p < 790:
		return k.some(ctx, 3, k.move)
	case p < 940:
		return k.some(ctx, 3, k.remove)
	case p < 950:
		return k.newFolder(ctx, k.spaces[k.rng.IntN(len(k.spaces))])
	case p < 970:
		return k.renameFolder(ctx)
	case p < 978:
		return k.removeFolder(ctx)
	}
	if k.rng.IntN(4) > 0 {
		return k.some(ctx, 3, k.write)
	}
	return k.exec(ctx, "update namespaces set quota_gb = ?, labels = ? where id = ?",
		fmt.Sprintf("%d.%03d", k.rng.IntN(9000), k.rng.IntN(1000)), k.labels(), k.spaces[k.rng.IntN(len(k.spaces))])
}

// some does it once or several times in one transaction.
func (k *worker) some(ctx context.Context, most int, do func(context.Context) error) error {
	for range 1 + k.rng.IntN(most) {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (k *worker) labels() string {
	return fmt.Sprintf(`{"tier": "%s", "owner": {"team": %d, "name": "Zoë \u0022Z\u0022"}, "revision": %d}`, []string{"hot", "warm", "cold"}[k.rng.IntN(3)], k.rng.IntN(50), k.rng.Int64())
}

func (k *worker) newNamespace(ctx context.Context) error {
	id := k.id()
	k.spaces = append(k.spaces, id)
	if err := k.exec(ctx, "insert into namespaces (id, name, quota_gb, labels) values (?, ?, ?, ?)", id, fmt.Sprintf("team-%d", id), "100.000", k.labels()); err != nil {
		return err
	}
	for range foldersEach {
		if err := k.newFolder(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

var words = []string{"report", "photo", "größe", "draft", "модель", "invoice", "notes", "数据", "song", "backup"}

func (k *worker) word() string { return words[k.rng.IntN(len(words))] }

func (k *worker) newFolder(ctx context.Context, namespace int64) error {
	f := &folder{id: k.id(), namespace: namespace}
	f.path = fmt.Sprintf("/%s-%d", k.word(), f.id)
	k.folders = append(k.folders, f)
	return k.exec(ctx, "insert into folders (id, namespace_id, path, changed) values (?, ?, ?, {now})", f.id, f.namespace, f.path)
}

func (k *worker) hexOf(n int) string {
	b := make([]byte, n/2)
	for i := range b {
		b[i] = byte(k.rng.Uint32())
	}
	return hex.EncodeToString(b)
}

func (k *worker) create(ctx context.Context) error {
	x := k.rng.Float64()
	in := k.folders[int(x*x*float64(len(k.folders)))] // some are much larger than others
	f := &file{id: k.id(), namespace: in.namespace, in: in, name: fmt.Sprintf("%s %d.dat", k.word(), k.lastID), at: len(k.files)}
	k.files = append(k.files, f)
	in.files++
	var sum, preview any
	if k.rng.IntN(4) > 0 {
		sum = k.hexOf(64)
	}
	switch k.rng.IntN(10) {
	case 0:
		preview = k.hexOf(3000 + k.rng.IntN(2000)) // stored out of line
	case 1, 2, 3:
		preview = k.hexOf(40)
	}
	if k.typed.Load() {
		return k.exec(ctx, "insert into files (id, namespace_id, folder_id, path, size, sha256, preview, changed, media_type) values (?, ?, ?, ?, ?, ?, ?, {now}, ?)",
			f.id, f.namespace, in.id, f.path(), k.rng.Int64N(1<<40), sum, preview, f.mediaType())
	}
	return k.exec(ctx, "insert into files (id, namespace_id, folder_id, path, size, sha256, preview, changed) values (?, ?, ?, ?, ?, ?, ?, {now})",
		f.id, f.namespace, in.id, f.path(), k.rng.Int64N(1<<40), sum, preview)
}

func (k *worker) pick() *file { return k.files[k.rng.IntN(len(k.files))] }

func (k *worker) write(ctx context.Context) error {
	if k.typed.Load() {
		size, sum, f := k.rng.Int64N(1<<40), k.hexOf(64), k.pick()
		return k.exec(ctx, "update files set size = ?, sha256 = ?, media_type = ?, changed = {now} where id = ?", size, sum, f.mediaType(), f.id)
	}
	return k.exec(ctx, "update files set size = ?, sha256 = ?, changed = {now} where id = ?", k.rng.Int64N(1<<40), k.hexOf(64), k.pick().id)
}

func (k *worker) rename(ctx context.Context) error {
	f := k.pick()
	f.name = fmt.Sprintf("%s %d v%d.dat", k.word(), f.id, k.rng.IntN(1000))
	return k.exec(ctx, "update files set path = ?, changed = {now} where id = ?", f.path(), f.id)
}

// move a file to a folder of another namespace.
func (k *worker) move(ctx context.Context) error {
	f, to := k.pick(), k.folders[k.rng.IntN(len(k.folders))]
	if to.namespace == f.namespace {
		return k.rename(ctx)
	}
	f.in.files--
	to.files++
	f.in, f.namespace = to, to.namespace
	k.moves++
	return k.exec(ctx, "update files set namespace_id = ?, folder_id = ?, path = ?, changed = {now} where id = ?", f.namespace, to.id, f.path(), f.id)
}

// forget a file: the last takes its place.
func (k *worker) forget(f *file) {
	last := k.files[len(k.files)-1]
	k.files[f.at], last.at = last, f.at
	k.files = k.files[:len(k.files)-1]
	f.in.files--
}

func (k *worker) remove(ctx context.Context) error {
	if len(k.files) == 0 {
		return k.create(ctx)
	}
	f := k.pick()
	k.forget(f)
	return k.exec(ctx, "delete from files where id = ?", f.id)
}

// renameFolder changes the path of everything in it, in one transaction.
func (k *worker) renameFolder(ctx context.Context) error {
	f := k.folders[k.rng.IntN(len(k.folders))]
	old := len([]rune(f.path))
	f.path = fmt.Sprintf("/%s-%d-%d", k.word(), f.id, k.rng.IntN(1_000_000))
	if err := k.exec(ctx, "update folders set path = ?, changed = {now} where id = ?", f.path, f.id); err != nil {
		return err
	}
	return k.exec(ctx, "update files set path = concat(?, substr(path, ?)), changed = {now} where folder_id = ?", f.path, old+1, f.id)
}

func (k *worker) removeFolder(ctx context.Context) error {
	at := k.rng.IntN(len(k.folders))
	f := k.folders[at]
	if len(k.folders) < namespacesEach || f.files > 100 {
		return k.renameFolder(ctx)
	}
	for i := len(k.files) - 1; i >= 0; i-- {
		if k.files[i].in == f {
			k.forget(k.files[i])
		}
	}
	k.folders[at] = k.folders[len(k.folders)-1]
	k.folders = k.folders[:len(k.folders)-1]
	if err := k.exec(ctx, "delete from files where folder_id = ?", f.id); err != nil {
		return err
	}
	return k.exec(ctx, "delete from folders where id = ?", f.id)
}
