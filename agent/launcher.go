package main

import (
	"runtime"
	"syscall"
)

// launcher forks. With a pids group it owns one thread that lives in that group while the rest of the agent
// stays outside: a child is in the group of the thread that forked it from its first instruction, so counting
// costs nothing at a start and there is no moment in which a child is outside.
type launcher struct {
	jobs chan *launchJob
	pids *pidsGroup // nil without one
}

type launchJob struct {
	argv0 string
	argv  []string
	attr  *syscall.ProcAttr
	done  chan struct{}
	pid   int
	err   error
}

// newLauncher starts the thread; without a group it just forks.
func newLauncher(group *pidsGroup) *launcher {
	l := &launcher{}
	if group == nil {
		return l
	}
	l.jobs = make(chan *launchJob)
	joined := make(chan error)
	go l.serve(group, joined)
	if err := <-joined; err != nil {
		logf("no limit of processes: %v", err)
		l.jobs = nil
		return l
	}
	l.pids = group
	return l
}

func (l *launcher) serve(group *pidsGroup, joined chan<- error) {
	// Never unlocked: the thread is not like the others any more. New threads of the runtime are not made by
	// a locked thread, so none of them is born into the group.
	runtime.LockOSThread()
	err := group.joinThread()
	joined <- err
	if err != nil {
		return
	}
	for job := range l.jobs {
		job.pid, job.err = syscall.ForkExec(job.argv0, job.argv, job.attr)
		close(job.done)
	}
}

// forkExec starts a program. reserve is how far it may go above the limit of processes.
func (l *launcher) forkExec(reserve int, argv0 string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if !l.pids.admits(reserve) {
		return 0, syscall.EAGAIN
	}
	if l.jobs == nil {
		return syscall.ForkExec(argv0, argv, attr)
	}
	job := &launchJob{argv0: argv0, argv: argv, attr: attr, done: make(chan struct{})}
	l.jobs <- job
	<-job.done
	return job.pid, job.err
}

// limit sets how many tasks (processes and threads) may exist at once, and tells whether it is in force.
func (l *launcher) limit(pids int) bool {
	if l.pids == nil || pids == 0 && l.pids.limit.Load() == 0 {
		return false
	}
	if err := l.pids.setLimit(pids); err != nil {
		logf("no limit of processes: %v", err)
		return false
	}
	return pids > 0
}
