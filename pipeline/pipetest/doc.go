// Package pipetest has the parts that tests put in the place of the real ones (a log in memory, a source
// that follows a script, a sink that records), and the conformance suites that every implementation of
// a seam passes, these included.
package pipetest
