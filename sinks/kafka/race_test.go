//go:build race

package kafka

const raceEnabled = true // which allocates by itself
