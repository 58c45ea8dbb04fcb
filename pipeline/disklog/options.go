package disklog

import (
	"errors"
	"fmt"
	"time"

	"github.com/leat-cdc/leat/pipeline/disklog/diskfs"

	"github.com/leat-cdc/leat/pipeline"
)

// Options of a log. Dir and Source are required.
type Options struct {
	// Dir is the log's own folder; made when it is not there.
	Dir string
	// Source is the name of the source that the log is of; kept in the folder and compared when it is
	// opened again.
	Source string
	// SegmentSize is how large a segment's file gets, in bytes; default 128 MiB, at least 16 KiB, below
	// 1 GiB. The first segments of a log are smaller (1/16, 1/4), so that a small log stays small.
	SegmentSize int64
	Retention   Retention
	// Memory bounds the shared tail that readers who keep up are served from, in bytes; default 64 MiB. While two or
	// more readers who fell behind are near one another, they share up to a quarter as much again.
	Memory int64
	// Queue bounds what waits for the disk, in bytes; default 16 MiB. One batch always passes.
	Queue int64
	// FS is the file system below; default diskfs.OS{}.
	FS diskfs.FS
	// Now is the clock for creation times and ages; default time.Now. Waiting uses package time.
	Now      func() time.Time
	Observer pipeline.Observer
}

// Retention says when sealed segments go. The newest segment always stays.
type Retention struct {
	// Age: a segment goes when its newest commit, and the segment itself, are older than this and all of it
	// lies below the floor (Log.Floor). Nothing goes by age before Floor was called once. 0: never.
	Age time.Duration
	// Size: while the files are larger than this together, the oldest segment goes, whatever the floor
	// says: a subscription that lags cannot fill the disk. 0: no bound.
	Size int64
}

const minSegment = 16 << 10

func (o Options) fill() (Options, error) {
	if o.Dir == "" || o.Source == "" {
		return o, errors.New("a log needs a folder and the name of its source")
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = 128 << 20
	}
	if o.SegmentSize < minSegment || o.SegmentSize > maxSegment/2 {
		return o, fmt.Errorf("segment size %d: want %d to %d bytes", o.SegmentSize, minSegment, maxSegment/2)
	}
	if o.Memory <= 0 {
		o.Memory = 64 << 20
	}
	if o.Queue <= 0 {
		o.Queue = 16 << 20
	}
	if o.FS == nil {
		o.FS = diskfs.OS{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Observer = o.Observer.Fill()
	return o, nil
}
