package engine

import (
	"container/heap"
	"math"
)

const (
	// exactKeys is up to how many keys are counted one by one.
	exactKeys = 1 << 16
	// leastKeys is how many of the lowest hashes are kept beyond that: the standard error is 1/√(leastKeys-2), 1.6 %.
	leastKeys = 1 << 12
)

// keyCount counts different hashes: exactly while they are few, then by how small the smallest are (the k
// minimum values of Bar-Yossef et al., "Counting distinct elements in a data stream", 2002).
type keyCount struct {
	exact map[uint64]struct{}
	least maxHeap
	in    map[uint64]struct{} // of least
}

func (d *keyCount) add(hash uint64) {
	// Hashes of one space differ from others by a constant: mixed, they spread evenly.
	h := hash * 0x9e3779b97f4a7c15
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 32
	if d.in == nil {
		if d.exact == nil {
			d.exact = map[uint64]struct{}{}
		}
		d.exact[h] = struct{}{}
		if len(d.exact) > exactKeys {
			d.in = map[uint64]struct{}{}
			for h := range d.exact {
				d.offer(h)
			}
			d.exact = nil
		}
		return
	}
	d.offer(h)
}

func (d *keyCount) offer(h uint64) {
	if len(d.least) == leastKeys && h >= d.least[0] {
		return
	}
	if _, there := d.in[h]; there {
		return
	}
	d.in[h] = struct{}{}
	heap.Push(&d.least, h)
	if len(d.least) > leastKeys {
		delete(d.in, heap.Pop(&d.least).(uint64))
	}
}

// count returns how many there are, and whether that is an estimate.
func (d *keyCount) count() (n uint64, about bool) {
	if d.in == nil {
		return uint64(len(d.exact)), false
	}
	return uint64(float64(leastKeys-1) / (float64(d.least[0]) / math.MaxUint64)), true
}

type maxHeap []uint64

func (h maxHeap) Len() int           { return len(h) }
func (h maxHeap) Less(i, j int) bool { return h[i] > h[j] }
func (h maxHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop are for container/heap.
func (h *maxHeap) Push(x any) { *h = append(*h, x.(uint64)) }

// Pop removes the last.
func (h *maxHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
