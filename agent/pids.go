package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The limit of processes has three parts, because none is enough in gVisor.
//
//   - RLIMIT_NPROC, set on the agent and inherited by everything it starts: fork fails with EAGAIN, exactly, per
//     user, but not for a process with CAP_SYS_ADMIN or CAP_SYS_RESOURCE (root, or root of a user namespace).
//   - A group of the pids controller, which counts everything that the agent has started, threads included. It is
//     the measure; as a limit it is leaky: gVisor charges a fork to whichever of the task's seven groups comes first,
//     so that only one fork in seven is checked.
//   - A watch that ends what is too much when the count is well above the limit: what got past the two others.
//
// All of it costs nothing at a start.

// apiReserve is how many tasks more the server may start when the sandbox's own programs have used up the limit: to
// look what happens, and to end it.
const apiReserve = 16

// pidsGroup is the group of the pids controller that everything but the agent lives in.
type pidsGroup struct {
	dir     string
	current *os.File
	limit   atomic.Int32 // of tasks; 0 is none
}

// mountPidsController makes the kernel's pids controller available in a directory that only root may enter.
func mountPidsController(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, "tasks")); err == nil {
		return dir, nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	const flags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	return dir, syscall.Mount("cgroup", dir, "cgroup", flags, "pids")
}

// openPidsGroup mounts the controller and makes the group.
func openPidsGroup(dir string) (*pidsGroup, error) {
	controller, err := mountPidsController(dir)
	if err != nil {
		return nil, err
	}
	return newPidsGroup(controller)
}

// newPidsGroup makes the group in a mounted controller.
func newPidsGroup(controller string) (*pidsGroup, error) {
	dir := filepath.Join(controller, "paddock")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	current, err := os.Open(filepath.Join(dir, "pids.current"))
	if err != nil {
		return nil, err
	}
	return &pidsGroup{dir: dir, current: current}, nil
}

// joinThread moves the calling thread, and with it what it forks, into the group.
func (g *pidsGroup) joinThread() error {
	return os.WriteFile(filepath.Join(g.dir, "tasks"), []byte(strconv.Itoa(syscall.Gettid())), 0)
}

// setLimit puts a limit in force; 0 lifts it. Processes that run already keep the RLIMIT_NPROC they were started with.
func (g *pidsGroup) setLimit(pids int) error {
	const rlimitNproc, unlimited = 6, ^uint64(0)
	text, limit := "max", syscall.Rlimit{Cur: unlimited, Max: unlimited}
	if pids > 0 {
		text = strconv.Itoa(pids + apiReserve + 1) // the agent's own thread is in the group too
		limit = syscall.Rlimit{Cur: uint64(pids), Max: uint64(pids)}
	}
	if err := os.WriteFile(filepath.Join(g.dir, "pids.max"), []byte(text), 0); err != nil {
		return err
	}
	if err := syscall.Setrlimit(rlimitNproc, &limit); err != nil {
		return err
	}
	g.limit.Store(int32(pids))
	return nil
}

// count is the number of tasks in the group, without the agent's thread.
func (g *pidsGroup) count() int {
	var buf [32]byte
	n, err := g.current.ReadAt(buf[:], 0)
	if n == 0 || err != nil && err != io.EOF {
		return 0
	}
	count, _ := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	return count - 1
}

// admits tells whether one more may be started, with the reserve or without.
func (g *pidsGroup) admits(reserve int) bool {
	if g == nil {
		return true
	}
	limit := int(g.limit.Load())
	return limit == 0 || g.count() < limit+reserve
}

// excess is how far the count is above what any honest program can reach: 0 if it is not.
func (g *pidsGroup) excess() int {
	limit := int(g.limit.Load())
	if limit == 0 {
		return 0
	}
	bound := limit + apiReserve + limit/8
	if n := g.count(); n > bound {
		return n - bound
	}
	return 0
}

// untilNextCheck is the time in which a fork bomb could reach the bound from here.
func (g *pidsGroup) untilNextCheck() time.Duration {
	limit := int(g.limit.Load())
	if limit == 0 {
		return longestInterval
	}
	const forksPerSecond = 1000
	pause := time.Duration(limit-g.count()) * time.Second / forksPerSecond
	switch {
	case pause < shortestInterval:
		return shortestInterval
	case pause > longestInterval:
		return longestInterval
	}
	return pause
}

// members are the processes in the group.
func (g *pidsGroup) members() []int {
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil && pid > 1 && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// candidate is a process that may have to go because there are too many.
type candidate struct {
	pid, pgrp int
	started   uint64
}

// chooseSurplus picks the processes to end. If half of all are in one process group, that group is the bomb. Otherwise
// its processes have left each other's groups, and it is the newest that go, until no more than keep are left.
func chooseSurplus(all []candidate, keep int) []candidate {
	groups := map[int]int{}
	largest := 0
	for _, c := range all {
		groups[c.pgrp]++
		if groups[c.pgrp] > groups[largest] {
			largest = c.pgrp
		}
	}
	if 2*groups[largest] >= len(all) {
		var chosen []candidate
		for _, c := range all {
			if c.pgrp == largest {
				chosen = append(chosen, c)
			}
		}
		return chosen
	}
	sort.Slice(all, func(i, j int) bool {
		if all[i].started != all[j].started {
			return all[i].started > all[j].started
		}
		return all[i].pid > all[j].pid
	})
	if keep < len(all) {
		return all[:len(all)-keep]
	}
	return nil
}
