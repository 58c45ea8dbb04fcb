package flow

// DiskStage is what a disk that fills asks for; each includes those before it.
type DiskStage uint8

const (
	DiskRoomy   DiskStage = iota
	DiskReplays           // 80 %: no replays, what was kept for them may go
	DiskLaggard           // 90 %: subscriptions that lag are treated by their policy
	DiskStop              // 95 %: nothing is read any more, and somebody is told
)

var diskAt = [...]float64{DiskReplays: 0.80, DiskLaggard: 0.90, DiskStop: 0.95}

// diskBack is how far below its mark the disk has to be until a stage ends.
const diskBack = 0.02

// plenty of bytes free are enough, however large the disk is.
const plenty = 32 << 30

// Disk watches how full the log's disk is. The zero value is ready. Not for concurrent use.
type Disk struct{ stage DiskStage }

// Measured takes how many bytes are free of how many and returns the stage; a total of 0 says nothing.
func (d *Disk) Measured(free, total uint64) DiskStage {
	if total == 0 {
		return d.stage
	}
	used := 1 - float64(min(free, total))/float64(total)
	if free > plenty {
		used = 0
	}
	for d.stage < DiskStop && used >= diskAt[d.stage+1] {
		d.stage++
	}
	for d.stage > DiskRoomy && used < diskAt[d.stage]-diskBack {
		d.stage--
	}
	return d.stage
}
