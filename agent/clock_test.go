package main

import (
	"sync/atomic"
	"testing"
	"time"
)

func TestAfterRunningWaitsAndCanBeStopped(t *testing.T) {
	began := time.Now()
	done := make(chan time.Duration, 1)
	afterRunning(80*time.Millisecond, func() { done <- time.Since(began) })
	var calls atomic.Int32
	stopped := afterRunning(20*time.Millisecond, func() { calls.Add(1) })
	stopped()
	stopped()
	if took := <-done; took < 80*time.Millisecond || took > time.Second {
		t.Errorf("after %v", took)
	}
	if calls.Load() != 0 {
		t.Error("it was stopped")
	}
}
