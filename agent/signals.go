package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

var signalNames = map[syscall.Signal]string{
	1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
	9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
	16: "SIGSTKFLT", 17: "SIGCHLD", 18: "SIGCONT", 19: "SIGSTOP", 20: "SIGTSTP", 21: "SIGTTIN", 22: "SIGTTOU",
	23: "SIGURG", 24: "SIGXCPU", 25: "SIGXFSZ", 26: "SIGVTALRM", 27: "SIGPROF", 28: "SIGWINCH", 29: "SIGIO",
	30: "SIGPWR", 31: "SIGSYS",
}

const maxSignal = 64

// signalSession reaches every process of a session. Linux tells the foreground group of a terminal that was resized; this
// gVisor does not, and shows the group to nobody but the session's own. SIGWINCH does nothing to who does not expect it.
func signalSession(proc string, session int, sig syscall.Signal) {
	dir, err := os.Open(proc)
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid <= 1 {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(proc, name, "stat"))
		if err == nil && parseStat(string(stat)).session == session {
			_ = syscall.Kill(pid, sig)
		}
	}
}

func signalName(sig syscall.Signal) string {
	if name, ok := signalNames[sig]; ok {
		return name
	}
	return "SIG" + strconv.Itoa(int(sig))
}

// parseSignal reads "SIGTERM", "term" or 15.
func parseSignal(raw json.RawMessage) (syscall.Signal, error) {
	var number int
	if json.Unmarshal(raw, &number) == nil {
		if number < 1 || number > maxSignal {
			return 0, fail("bad_request", "there is no signal %d", number)
		}
		return syscall.Signal(number), nil
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return 0, fail("bad_request", "signal must be a name or a number")
	}
	if number, err := strconv.Atoi(text); err == nil && number >= 1 && number <= maxSignal {
		return syscall.Signal(number), nil
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")
	for sig, known := range signalNames {
		if known == name {
			return sig, nil
		}
	}
	return 0, fail("bad_request", "there is no signal %q", text)
}
