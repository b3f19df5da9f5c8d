package main

import (
	"sync"
	"time"
)

// A restore from a checkpoint sets the sandbox's clocks ahead, also the monotonic one, by the time for which it stood
// still: whatever waits for a moment is then over at once, before anybody had the time that was meant for them.

// afterRunning calls f when the sandbox has run for d. It waits in steps, so that a jump of the clock counts as one step
// at most. stop ends the wait; f may be running then.
func afterRunning(d time.Duration, f func()) (stop func()) {
	const steps = 8
	var mu sync.Mutex
	var timer *time.Timer
	left, stopped := steps, false
	var step func()
	step = func() {
		mu.Lock()
		left--
		over := left == 0 && !stopped
		if left > 0 && !stopped {
			timer = time.AfterFunc(d/steps, step)
		}
		mu.Unlock()
		if over {
			f()
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(d/steps, step)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		stopped = true
		timer.Stop()
	}
}
