package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fakeProc makes a /proc with a memory of 1000 MiB and one process per resident size.
func fakeProc(t *testing.T, availableMiB int, residentMiB map[int]int) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/meminfo", fmt.Sprintf("MemTotal:  1024000 kB\nMemFree: 1 kB\nMemAvailable: %d kB\n", availableMiB<<10))
	for pid, mib := range residentMiB {
		p := filepath.Join(dir, fmt.Sprint(pid))
		os.Mkdir(p, 0o755)
		write(t, p+"/statm", fmt.Sprintf("99999999 %d 0 0 0 0 0\n", (mib<<20)/os.Getpagesize()))
		write(t, p+"/stat", fmt.Sprintf("%d (a) b (c) S 1 %d %d 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0", pid, pid+1, pid+2, pid*10))
		write(t, p+"/cmdline", fmt.Sprintf("prog\x00-%d\x00", pid))
	}
	return dir
}

func TestTheLargestProcessGoesWhenMemoryIsShort(t *testing.T) {
	for name, c := range map[string]struct {
		available int
		resident  map[int]int
		killed    []int
	}{
		"enough":                  {200, map[int]int{50: 700}, nil},
		"short":                   {70, map[int]int{50: 300, 51: 500, 52: 100}, []int{51}},
		"short, nobody is to say": {70, map[int]int{50: 30, 51: 40}, nil},
		"the agent is spared":     {70, map[int]int{1: 900, os.Getpid(): 800, 52: 100}, []int{52}},
	} {
		var killed []int
		events := newEventLog()
		w := newWatch(fakeProc(t, c.available, c.resident), newProcesses(nil, nil, nil, events), events, nil)
		w.kill = func(pid int) error { killed = append(killed, pid); return nil }
		w.sleep = func(time.Duration) {}
		w.look()
		if fmt.Sprint(killed) != fmt.Sprint(c.killed) {
			t.Errorf("%s: killed %v", name, killed)
		}
		seen, _, _ := events.since(0)
		if len(seen) != len(c.killed) {
			t.Errorf("%s: %d events", name, len(seen))
		}
		for _, e := range seen {
			if e.Type != "oom_process" || e.PID != killed[0] || *e.Command != fmt.Sprintf("prog -%d", e.PID) || e.RSSBytes != int64(c.resident[e.PID])<<20 {
				t.Errorf("%s: %+v", name, e)
			}
		}
	}
}

func TestTheExitOfAVictimSaysWhy(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "exec sleep 100"})
	a.agent.processes.markOutOfMemory(p.PID, 0, 0)
	a.call("POST", "/v1/processes/"+p.ID+"/signal", map[string]any{"signal": 9})
	_, body := a.call("GET", "/v1/processes/"+p.ID+"/output?follow=true", nil)
	if r := a.resultOf([]byte(body)); r.exit.Reason != "out_of_memory" || r.exit.ExitCode != 137 {
		t.Errorf("%+v", r.exit)
	}
}

func TestTheWatchIsCloserWhenLessIsLeft(t *testing.T) {
	for _, c := range []struct {
		left int64
		want time.Duration
	}{{0, shortestInterval}, {10 << 20, shortestInterval}, {205 << 20, 100 * time.Millisecond}, {64 << 30, longestInterval}} {
		if got := untilNextLook(c.left).Round(10 * time.Millisecond); got != c.want {
			t.Errorf("%d bytes: %v, want %v", c.left, got, c.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	for stat, want := range map[string]procStat{
		"7 (a) b (c) S 1 8 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 70 0 0": {"a) b (c", 8, 9, 70},
		"7 () S 1 8 9": {"", 8, 9, 0},
		"nonsense":     {},
		"7 (x":         {},
	} {
		if got := parseStat(stat); got != want {
			t.Errorf("%q: %+v", stat, got)
		}
	}
}

func TestASurplusOfProcesses(t *testing.T) {
	oneGroup := []candidate{{10, 10, 1}, {20, 20, 5}, {21, 20, 5}, {22, 20, 6}, {30, 30, 9}}
	if got := fmt.Sprint(chooseSurplus(oneGroup, 1)); got != "[{20 20 5} {21 20 5} {22 20 6}]" {
		t.Error(got)
	}
	scattered := []candidate{{10, 10, 1}, {20, 20, 5}, {21, 21, 5}, {22, 22, 6}, {30, 30, 9}}
	if got := fmt.Sprint(chooseSurplus(scattered, 2)); got != "[{30 30 9} {22 22 6} {21 21 5}]" {
		t.Error(got)
	}
	if got := chooseSurplus(scattered, 9); len(got) != 0 {
		t.Error(got)
	}
	if got := chooseSurplus(nil, 0); len(got) != 0 {
		t.Error(got)
	}
}

func TestNothingIsSignalledOutsideASandbox(t *testing.T) {
	if os.Getpid() == 1 {
		t.Skip("this is process 1")
	}
	if err := signalAll(0); err == nil {
		t.Fatal("signalAll must refuse: it would reach the whole machine")
	}
}
