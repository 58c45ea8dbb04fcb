//go:build race

package records

// raceEnabled: sync.Pool drops at random under the race detector.
const raceEnabled = true
