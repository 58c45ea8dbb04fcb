package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
)

// profileVariable names a file for a CPU profile of the whole run: for the bench, which starts leat as a
// process of its own.
const profileVariable = "LEAT_CPUPROFILE"

// profile begins a CPU profile where the environment asks for one; what it returns ends it.
func profile() (end func() error, err error) {
	path := os.Getenv(profileVariable)
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("%s: create the profile: %w; name a file in a folder that exists", profileVariable, err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", profileVariable, err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
