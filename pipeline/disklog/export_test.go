package disklog

import "github.com/leat-cdc/leat/pipeline"

// AppendTogether queues batches at once, so that they are written as one group.
func AppendTogether(l *Log, batches ...*pipeline.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range batches {
		it := item{b: b}
		if err := l.encode(&it); err != nil {
			return err
		}
		it.bytes = int64(len(b.Arena)) + int64(it.payload)
		if _, err := l.enqueue(it); err != nil {
			return err
		}
	}
	return nil
}

// Settled reports whether retention has nothing left to do.
func Settled(l *Log) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.mu.moving && !l.mu.relogging && len(l.mu.queue) == 0 && l.expired() == 0 && l.overdue() == 0
}
