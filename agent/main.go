// Command agent is process 1 of every Paddock sandbox: it prepares the image, takes an identity, and serves processes,
// files and tunnels to the server over HTTP. docs/agent-protocol.md is its contract.
//
// Called by the name of sudo it is the sandbox's sudo.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// version is set by the build.
var version = "dev"

func main() {
	if strings.HasSuffix(filepath.Base(os.Args[0]), "sudo") {
		os.Exit(sudoMain(os.Args[1:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println("paddock-agent", version)
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "paddock-agent: this is process 1 of a sandbox and does nothing elsewhere")
		os.Exit(2)
	}
	run()
}

func run() {
	// Small and quiet: it is paid for in every sandbox. Two threads at least, because a fork occupies one
	// until the child has executed its program.
	procs := runtime.NumCPU()
	if procs > 4 {
		procs = 4
	}
	if procs < 2 {
		procs = 2
	}
	runtime.GOMAXPROCS(procs)
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(maxOutputInAll + 64<<20)
	surviveSignals()
	syscall.Umask(0o022)
	limitDescriptors()

	executable, err := os.Executable()
	if err != nil {
		executable = "/.paddock/agent"
	}
	environ := os.Environ()
	user, users := boot("", executable)
	events, connections := newEventLog(), newConnections()
	reaper := newReaper()
	trust := &trustStore{}
	if err := trust.prepare(); err != nil {
		logf("trust: %v", err)
	}
	group, err := openPidsGroup("/run/paddock/private/pids")
	if err != nil {
		logf("no limit of processes: %v", err)
	}
	launcher := newLauncher(group)
	processes := newProcesses(users, reaper, launcher, events)
	watch := newWatch("/proc", processes, events, launcher.pids)
	reaper.onBusy = watch.wakeUp
	sudo := newSudoServer(sudoSocket, users, reaper, launcher)
	a := &agent{
		accounts:    users,
		processes:   processes,
		events:      events,
		connections: connections,
		claimer: &claimer{
			executable: executable, accounts: users, templateEnv: templateEnv(environ),
			setHostname: setKernelHostname, addEntropy: writeEntropy, limitPids: launcher.limit,
			openSudo:    func(defaultUser account) error { return sudo.open(user, defaultUser) },
			closeSudo:   sudo.close,
			memoryWatch: watch.works(),
			trust:       trust,
		},
	}
	go reaper.run()
	go watch.run(func() bool { return reaper.busy.Load() })

	server := newHTTPServer(a)
	for {
		listener, err := listen(":"+strconv.Itoa(agentPort), connections)
		if err == nil {
			err = server.Serve(listener)
		}
		// There is no life without the listener, and no death either: process 1 tries again.
		logf("listen: %v", err)
		time.Sleep(time.Second)
	}
}

// surviveSignals catches what would end the agent. Caught, not ignored: an ignored signal would stay ignored in
// every process of the sandbox.
func surviveSignals() {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGPIPE,
		syscall.SIGALRM, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
		syscall.SIGXCPU, syscall.SIGXFSZ, syscall.SIGVTALRM, syscall.SIGIO, syscall.SIGPWR, syscall.SIGSYS, syscall.SIGTRAP,
		syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL)
	go func() {
		for range caught {
		}
	}()
}

// limitDescriptors takes what the agent needs; processes inherit it. Some old programs close every possible
// descriptor one by one, so it is not the largest the kernel allows.
func limitDescriptors() {
	const want = 65536
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	limit.Cur = want
	if limit.Max < want {
		limit.Cur = limit.Max
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		logf("descriptors: %v", err)
	}
}
