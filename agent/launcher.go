package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// launcher forks. With a pids group it owns one thread that lives in that group while the rest of the agent
// stays outside: a child is in the group of the thread that forked it from its first instruction, so the limit
// costs nothing at a start and there is no moment in which a child is outside.
type launcher struct {
	jobs  chan *launchJob
	group string // the cgroup's directory; empty without a limit
}

type launchJob struct {
	argv0 string
	argv  []string
	attr  *syscall.ProcAttr
	done  chan struct{}
	pid   int
	err   error
}

// newLauncher makes the group below a mounted pids controller and moves a thread into it. Without a controller
// it still forks, without a limit.
func newLauncher(controller string) *launcher {
	l := &launcher{}
	group := filepath.Join(controller, "paddock")
	if controller == "" {
		return l
	}
	if err := os.Mkdir(group, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		logf("no pids limit: %v", err)
		return l
	}
	l.jobs = make(chan *launchJob)
	joined := make(chan error)
	go l.serve(group, joined)
	if err := <-joined; err != nil {
		logf("no pids limit: %v", err)
		l.jobs = nil
		return l
	}
	l.group = group
	return l
}

func (l *launcher) serve(group string, joined chan<- error) {
	// Never unlocked: the thread is not like the others any more. New threads of the runtime are not made by
	// a locked thread, so none of them is born into the group.
	runtime.LockOSThread()
	err := os.WriteFile(filepath.Join(group, "tasks"), []byte(strconv.Itoa(syscall.Gettid())), 0)
	joined <- err
	if err != nil {
		return
	}
	for job := range l.jobs {
		job.pid, job.err = syscall.ForkExec(job.argv0, job.argv, job.attr)
		close(job.done)
	}
}

// limit sets how many tasks (processes and threads) may exist at once, and tells whether it is in force.
func (l *launcher) limit(pids int) bool {
	if l.group == "" || pids <= 0 {
		return false
	}
	// The launching thread itself is a member.
	err := os.WriteFile(filepath.Join(l.group, "pids.max"), []byte(strconv.Itoa(pids+1)), 0)
	if err != nil {
		logf("no pids limit: %v", err)
	}
	return err == nil
}

func (l *launcher) forkExec(argv0 string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if l.jobs == nil {
		return syscall.ForkExec(argv0, argv, attr)
	}
	job := &launchJob{argv0: argv0, argv: argv, attr: attr, done: make(chan struct{})}
	l.jobs <- job
	<-job.done
	return job.pid, job.err
}
