// Package flow holds the machines that decide how fast to go. All are pure: now and rand are handed in.
package flow
