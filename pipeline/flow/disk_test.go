package flow

import (
	"testing"

	"pgregory.net/rapid"
)

func TestDisk(t *testing.T) {
	var d Disk
	for i, c := range []struct {
		free uint64
		want DiskStage
	}{{50, DiskRoomy}, {20, DiskReplays}, {21, DiskReplays}, {23, DiskRoomy}, {5, DiskStop}, {6, DiskStop}, {8, DiskLaggard}, {13, DiskReplays}, {0, DiskStop}, {100, DiskRoomy}} {
		if got := d.Measured(c.free, 100); got != c.want {
			t.Fatalf("%d: %d free: stage %d, want %d", i, c.free, got, c.want)
		}
	}
	if got := d.Measured(33<<30, 1<<50); got != DiskRoomy {
		t.Fatalf("33 GiB free of a large disk: stage %d", got)
	}
}

// TestDiskStopsAndGoesOn: above the last mark always, below the last one's end never.
func TestDiskStopsAndGoesOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Disk
		for _, free := range rapid.SliceOf(rapid.Uint64Range(0, 1000)).Draw(t, "free") {
			got := d.Measured(free, 1000)
			if free <= 50 != (got == DiskStop) && (free <= 50 || free > 70) {
				t.Fatalf("%d of 1000 free: stage %d", free, got)
			}
			if d.Measured(0, 0) != got {
				t.Fatal("nothing measured, and another stage")
			}
		}
	})
}
