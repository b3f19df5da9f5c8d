package main

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// reaper is the only place that waits for children. The agent is process 1: besides what it starts, every
// orphan of the sandbox becomes its child.
//
// Two races are designed out. A child may end before its start has been registered: statuses of unknown
// children are kept while any start is under way. And a signal must never reach a process that merely inherited
// the number: a child is first looked at without being reaped, then reaped under the same lock that signals take.
type reaper struct {
	mu       sync.Mutex
	children map[int]func(syscall.WaitStatus)
	starting int
	early    map[int]syscall.WaitStatus

	wake chan struct{} // a child may exist again
	busy atomic.Bool   // children exist
	// onBusy is called when the first child appears; it must not block.
	onBusy func()
}

func newReaper() *reaper {
	return &reaper{
		children: map[int]func(syscall.WaitStatus){},
		early:    map[int]syscall.WaitStatus{},
		wake:     make(chan struct{}, 1),
		onBusy:   func() {},
	}
}

// start runs spawn, which forks, and calls onExit once when that child has ended. onExit runs on the
// reaper's thread: it must be quick.
func (r *reaper) start(spawn func() (int, error), onExit func(syscall.WaitStatus)) (int, error) {
	r.mu.Lock()
	r.starting++
	r.mu.Unlock()

	pid, err := spawn()

	r.mu.Lock()
	r.starting--
	status, ended := r.early[pid]
	if err == nil && ended {
		delete(r.early, pid)
	}
	if err == nil && !ended {
		r.children[pid] = onExit
	}
	if r.starting == 0 && len(r.early) > 0 {
		r.early = map[int]syscall.WaitStatus{}
	}
	r.mu.Unlock()

	select {
	case r.wake <- struct{}{}:
	default:
	}
	if err == nil && ended {
		onExit(status)
	}
	return pid, err
}

// signal sends sig to a child that has not been reaped, or to its group.
func (r *reaper) signal(pid int, sig syscall.Signal, group bool) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, alive := r.children[pid]; !alive {
		return false, nil
	}
	target := pid
	if group {
		target = -pid
	}
	err := syscall.Kill(target, sig)
	if err == syscall.ESRCH {
		return false, nil
	}
	return err == nil, err
}

// signalLeftovers sends sig to what is left of a group whose leader has ended. The kernel does not give a
// number out again while a group has it; a later child of ours with the same number means that the group is gone.
func (r *reaper) signalLeftovers(pgid int, sig syscall.Signal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, reused := r.children[pgid]; reused {
		return false
	}
	return syscall.Kill(-pgid, sig) == nil
}

// run reaps for ever.
func (r *reaper) run() {
	for {
		pid, err := peekEndedChild()
		switch {
		case err == syscall.EINTR:
		case err != nil: // ECHILD: nothing can be orphaned to us before we start something again
			r.busy.Store(false)
			<-r.wake
			r.busy.Store(true)
			r.onBusy()
		default:
			r.reap(pid)
		}
	}
}

func (r *reaper) reap(pid int) {
	var status syscall.WaitStatus
	r.mu.Lock()
	got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
	if err != nil || got != pid {
		// Somebody else got it: ForkExec waits itself for a child whose exec failed.
		r.mu.Unlock()
		return
	}
	onExit := r.children[pid]
	delete(r.children, pid)
	if onExit == nil && r.starting > 0 {
		r.early[pid] = status
	}
	r.mu.Unlock()
	if onExit != nil {
		guard("exit of a process", func() { onExit(status) })
	}
}

// peekEndedChild blocks until some child has ended and returns its pid without reaping it.
func peekEndedChild() (int, error) {
	const pAll, wExited, wNoWait = 0, 4, 0x1000000
	// struct siginfo on 64-bit Linux: three ints, padding, then si_pid.
	var info [128]byte
	_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pAll, 0, uintptr(unsafe.Pointer(&info[0])), wExited|wNoWait, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(*(*int32)(unsafe.Pointer(&info[16]))), nil
}
