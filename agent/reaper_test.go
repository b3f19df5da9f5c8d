package main

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestNoExitIsMissedHoweverFastItComes(t *testing.T) {
	attr := &syscall.ProcAttr{Sys: &syscall.SysProcAttr{}}
	var all sync.WaitGroup
	for worker := 0; worker < 4; worker++ {
		worker := worker
		all.Add(1)
		go func() {
			defer all.Done()
			for i := 0; i < 100; i++ {
				code := (worker*100 + i) % 256
				ended := make(chan int, 1)
				_, err := reaperForTests.start(
					func() (int, error) {
						pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", fmt.Sprint("exit ", code)}, attr)
						if i%3 == 0 {
							time.Sleep(3 * time.Millisecond) // it ends before it is registered
						}
						return pid, err
					},
					func(s syscall.WaitStatus) { ended <- s.ExitStatus() })
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case got := <-ended:
					if got != code {
						t.Errorf("got %d, want %d", got, code)
					}
				case <-time.After(10 * time.Second):
					t.Error("an exit was missed")
					return
				}
			}
		}()
	}
	all.Wait()
	// A start that fails is no child.
	if _, err := reaperForTests.start(func() (int, error) { return syscall.ForkExec("/not/there", nil, attr) },
		func(syscall.WaitStatus) { t.Error("an exit of nothing") }); err != syscall.ENOENT {
		t.Error(err)
	}
}

func TestASignalNeverReachesAProcessThatHasEnded(t *testing.T) {
	r := newReaper()
	if delivered, err := r.signal(os.Getpid(), 0, false); delivered || err != nil {
		t.Error("a process that was not started here was reached")
	}
	r.children[os.Getpid()] = func(syscall.WaitStatus) {}
	if delivered, _ := r.signal(os.Getpid(), 0, false); !delivered {
		t.Error("not delivered")
	}
	if r.signalLeftovers(os.Getpid(), 0) {
		t.Error("the number belongs to a living child")
	}
}
