//go:build race

package encode

// raceEnabled: sync.Pool drops at random under the race detector.
const raceEnabled = true
