package main

import (
	"fmt"
	"os"
	"sync/atomic"
)

// The agent's standard error is a pipe that perhaps nobody reads, so a log without bound would
// block it one day: it says at most maxLogLines short lines in its life.
const maxLogLines = 100

var logLines atomic.Int32

func logf(format string, args ...any) {
	if logLines.Add(1) > maxLogLines {
		return
	}
	line := fmt.Sprintf(format, args...)
	if len(line) > 300 {
		line = line[:300]
	}
	fmt.Fprintf(os.Stderr, "paddock-agent: %s\n", line)
}

// guard runs f and survives its panic: process 1 must not die, because everything would die with it.
func guard(what string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			logf("panic in %s: %v", what, p)
		}
	}()
	f()
}
