package main

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// Below this share of the sandbox's memory the largest process is ended. What lies behind it (the host's
	// limit) ends the whole sandbox.
	memoryReserve = 8 // percent
	// The faster memory can run out, the closer it is watched: a process can fill about this much in a second.
	fillRate         = 2 << 30
	shortestInterval = 20 * time.Millisecond
	longestInterval  = 500 * time.Millisecond
	// Ending a process that holds little frees little: then something else, for example files in memory, is
	// what fills it, and the innocent are left alone.
	leastVictimShare = 5 // percent
	leastVictim      = 8 << 20
)

// watch ends the largest process when memory runs short, and the largest process group when there are far too many
// processes, so that a greedy program costs its own life and not the sandbox's.
type watch struct {
	pids      *pidsGroup // nil without a limit
	excesses  int        // looks in a row that met too many processes
	proc      string
	processes *processes
	events    *eventLog
	wake      chan struct{}
	kill      func(pid int) error
	sleep     func(time.Duration)
	meminfo   *os.File
}

func newWatch(proc string, processes *processes, events *eventLog, pids *pidsGroup) *watch {
	w := &watch{pids: pids, proc: proc, processes: processes, events: events, wake: make(chan struct{}, 1), sleep: time.Sleep,
		kill: func(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }}
	// Kept open: it is read often.
	w.meminfo, _ = os.Open(filepath.Join(proc, "meminfo"))
	return w
}

// works tells whether the kernel gives the figures that are needed.
func (w *watch) works() bool {
	_, _, ok := w.read()
	return ok
}

// wakeUp says that processes exist again; it does not block.
func (w *watch) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run watches while there are processes and sleeps without a timer while there are none.
func (w *watch) run(busy func() bool) {
	if !w.works() {
		logf("no memory watch: /proc/meminfo is not readable")
	}
	for {
		if !busy() {
			<-w.wake
			continue
		}
		pause := longestInterval
		guard("watch", func() { pause = w.look() })
		w.sleep(pause)
	}
}

// look acts where something is short, and tells when to look again.
func (w *watch) look() time.Duration {
	pause := w.lookAtMemory()
	if w.pids != nil {
		if p := w.lookAtCount(); p < pause {
			pause = p
		}
	}
	return pause
}

func (w *watch) lookAtCount() time.Duration {
	if w.pids.excess() == 0 {
		if w.excesses > 0 && w.pids.count() < int(w.pids.limit.Load())/2 {
			w.excesses = 0
		}
		return w.pids.untilNextCheck()
	}
	w.excesses++
	w.endSurplus()
	return shortestInterval
}

// endSurplus ends a fork bomb. Everything is stopped first, with one system call: in a sandbox with hundreds of busy
// processes each further call takes long, and the bomb would win.
func (w *watch) endSurplus() {
	for i := 0; i < 3; i++ { // a fork that was under way escapes one sweep
		if err := signalAll(syscall.SIGSTOP); err != nil {
			logf("too many processes: %v", err)
			return
		}
	}
	defer signalAll(syscall.SIGCONT)
	var all []candidate
	for _, pid := range w.pids.members() {
		stat, err := os.ReadFile(filepath.Join(w.proc, strconv.Itoa(pid), "stat"))
		if err == nil {
			s := parseStat(string(stat))
			all = append(all, candidate{pid: pid, pgrp: s.pgrp, started: s.started})
		}
	}
	// A bomb that goes on from what was left is met again at once; then less is left.
	surplus := chooseSurplus(all, int(w.pids.limit.Load())/2>>w.excesses)
	for _, c := range surplus {
		syscall.Kill(c.pid, syscall.SIGKILL)
	}
	e := event{Type: "pids_exceeded", Members: len(surplus)}
	if len(surplus) > 0 {
		e.PID = surplus[0].pgrp
	}
	w.events.add(e)
}

func (w *watch) lookAtMemory() time.Duration {
	total, available, ok := w.read()
	if !ok {
		return longestInterval
	}
	reserve := total / 100 * memoryReserve
	if available >= reserve {
		return untilNextLook(available - reserve)
	}
	v, ok := w.largest()
	if !ok || v.rss < total/100*leastVictimShare || v.rss < leastVictim {
		return 2 * shortestInterval
	}
	// Marked first: its end may be reported before kill returns.
	w.processes.markOutOfMemory(v.pid, v.pgrp, v.session)
	if w.kill(v.pid) != nil {
		return shortestInterval
	}
	command := w.commandOf(v)
	w.events.add(event{Type: "oom_process", PID: v.pid, Command: &command, RSSBytes: v.rss})
	// Its memory comes back in its own time; the next victim must not die for that.
	for i := 0; i < 50; i++ {
		w.sleep(shortestInterval)
		if _, available, ok := w.read(); !ok || available >= reserve {
			break
		}
	}
	return shortestInterval
}

// untilNextLook is the time in which a greedy process could use up what is left, within bounds.
func untilNextLook(left int64) time.Duration {
	pause := time.Duration(float64(left) / fillRate * float64(time.Second))
	switch {
	case pause < shortestInterval:
		return shortestInterval
	case pause > longestInterval:
		return longestInterval
	}
	return pause
}

func (w *watch) read() (total, available int64, ok bool) {
	if w.meminfo == nil {
		return 0, 0, false
	}
	var buf [512]byte
	n, err := w.meminfo.ReadAt(buf[:], 0)
	if n == 0 || err != nil && err != io.EOF {
		return 0, 0, false
	}
	return parseMeminfo(string(buf[:n]))
}

func parseMeminfo(text string) (total, available int64, ok bool) {
	seen := 0
	for _, line := range strings.Split(text, "\n") {
		name, rest, found := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !found || len(fields) == 0 || name != "MemTotal" && name != "MemAvailable" {
			continue
		}
		kib, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, 0, false
		}
		if name == "MemTotal" {
			total = kib << 10
		} else {
			available = kib << 10
		}
		seen++
	}
	return total, available, seen == 2 && total > 0
}

type victim struct {
	pid, pgrp, session int
	rss                int64
	name               string
}

// largest finds the process with the most resident memory, the agent excepted.
func (w *watch) largest() (victim, bool) {
	dir, err := os.Open(w.proc)
	if err != nil {
		return victim{}, false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var best victim
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() || pid == 1 {
			continue
		}
		statm, err := os.ReadFile(filepath.Join(w.proc, name, "statm"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(statm))
		if len(fields) < 2 {
			continue
		}
		pages, _ := strconv.ParseInt(fields[1], 10, 64)
		if rss := pages * int64(os.Getpagesize()); rss > best.rss {
			best = victim{pid: pid, rss: rss}
		}
	}
	if best.pid == 0 {
		return best, false
	}
	if stat, err := os.ReadFile(filepath.Join(w.proc, strconv.Itoa(best.pid), "stat")); err == nil {
		s := parseStat(string(stat))
		best.name, best.pgrp, best.session = s.name, s.pgrp, s.session
	}
	return best, true
}

// procStat is what is needed of /proc/<pid>/stat.
type procStat struct {
	name          string
	pgrp, session int
	started       uint64 // clock ticks after the boot
}

// parseStat reads a line of /proc/<pid>/stat. The name may contain anything, also ")".
func parseStat(stat string) procStat {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return procStat{}
	}
	s := procStat{name: stat[open+1 : end]}
	fields := strings.Fields(stat[end+1:]) // from the third on: state ppid pgrp session …
	if len(fields) > 3 {
		s.pgrp, _ = strconv.Atoi(fields[2])
		s.session, _ = strconv.Atoi(fields[3])
	}
	if len(fields) > 19 {
		s.started, _ = strconv.ParseUint(fields[19], 10, 64)
	}
	return s
}

func (w *watch) commandOf(v victim) string {
	// Readable for a moment after the kill; else the short name does.
	f, err := os.Open(filepath.Join(w.proc, strconv.Itoa(v.pid), "cmdline"))
	if err == nil {
		defer f.Close()
		var buf [256]byte
		if n, _ := f.Read(buf[:]); n > 0 {
			return commandLine(buf[:n])
		}
	}
	return commandLine([]byte(v.name))
}
