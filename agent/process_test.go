package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestACommandRunsAsItsUserInItsDirectoryWithItsEnvironment(t *testing.T) {
	a := claimed(t)
	os.Mkdir(filepath.Join(a.home, "sub"), 0o755)
	r := a.run(map[string]any{"cmd": `id -u; id -g; id -G; pwd; echo "$HOME $USER $LOGNAME $SHELL $TMPDIR $LANG $FROM_TEMPLATE $FROM_CLAIM $LAYER $MINE"; umask; echo e >&2; exit 3`,
		"cwd": "sub", "env": map[string]string{"MINE": "mine", "LAYER": "process"}})
	want := "54321\n54321\n54321 54322\n" + a.home + "/sub\n" + a.home + " user user /bin/bash /tmp C.UTF-8 template claim process mine\n0022\n"
	if r.stdout != want || r.stderr != "e\n" || r.exit.ExitCode != 3 || r.exit.Reason != "exited" || r.exit.Signal != nil {
		t.Errorf("stdout %q\n want %q\nstderr %q exit %+v", r.stdout, want, r.stderr, r.exit)
	}
	if r.frames[0].kind != frameStarted || r.frames[0].number != 0 || r.start.PID == 0 {
		t.Errorf("first frame %+v", r.frames[0])
	}
	for i, f := range r.frames[1:] {
		if f.number != uint64(i+1) {
			t.Errorf("frame %d has number %d", i+1, f.number)
		}
	}
}

func TestTheTextOfACommandReachesTheShellExactly(t *testing.T) {
	a := claimed(t)
	for name, c := range map[string]struct {
		cmd, want string
		code      int
	}{
		"several lines": {"echo a\necho b", "a\nb\n", 0},
		"quotes":        {`echo "x'y" 'p"q' \$z`, "x'y p\"q $z\n", 0},
		"here document": {"cat <<'E'\n$x `y`\n\ttab\nE\n", "$x `y`\n\ttab\n", 0},
		"comment first": {"# nothing\necho c", "c\n", 0},
		"long":          {"x='" + strings.Repeat("é", 600_000) + "'\necho ${#x} $# $0; exit 4", "600000 0 /bin/bash\n", 4},
		"long comment":  {"#" + strings.Repeat("y", 200_000) + "\nread line; echo got $line", "got\n", 0},
	} {
		if r := a.run(map[string]any{"cmd": c.cmd}); r.stdout != c.want || r.exit.ExitCode != c.code {
			t.Errorf("%s: %q %q %+v", name, r.stdout, r.stderr, r.exit)
		}
	}
}

func TestAnArgumentVectorRunsWithoutAShell(t *testing.T) {
	a := claimed(t)
	for name, c := range map[string]struct {
		argv []string
		want string
	}{
		"found by PATH": {[]string{"printf", "%s|", "a b", "$HOME", "*"}, "a b|$HOME|*|"},
		"by its path":   {[]string{"/bin/sh", "-c", "echo $0 $1", "zero", "one"}, "zero one\n"},
	} {
		if r := a.run(map[string]any{"cmd": "echo wrong", "argv": c.argv}); r.stdout != c.want || r.exit.ExitCode != 0 {
			t.Errorf("%s: %q %q %+v", name, r.stdout, r.stderr, r.exit)
		}
	}
}

func TestStartsThatAreRefused(t *testing.T) {
	a := claimed(t)
	write(t, filepath.Join(a.root, "file"), "")
	os.Mkdir(filepath.Join(a.root, "closed"), 0o700)
	for code, bodies := range map[string][]map[string]any{
		"bad_request": {{"cmd": ""}, {"cmd": "a\x00b"}, {"cmd": "x", "kind": "odd"}, {"cmd": "x", "tag": strings.Repeat("t", 1025)},
			{"cmd": "x", "env": map[string]string{"A=B": "c"}}, {"cmd": "x", "env": map[string]string{"A": "\x00"}}, {"kind": "pty", "cols": 70000},
			{"cmd": "x", "env": map[string]string{"A": strings.Repeat("x", 200_000)}},
			{"cmd": "x", "argv": []string{""}}, {"cmd": "x", "argv": []string{"echo", "\x00"}}},
		"user_not_found": {{"cmd": "x", "user": "nobody-here"}},
		"cwd_not_found":  {{"cmd": "x", "cwd": "/not/there"}, {"cmd": "x", "cwd": filepath.Join(a.root, "file")}},
		"forbidden":      {{"cmd": "x", "cwd": filepath.Join(a.root, "closed")}},
		"spawn_failed":   {{"cmd": "x", "argv": []string{"no-such-program"}}, {"cmd": "x", "argv": []string{"/no/such"}}},
	} {
		for _, body := range bodies {
			a.wantCode(code, "POST", "/v1/processes", body)
		}
	}
	a.want(200, `{"processes":[]}`, "GET", "/v1/processes", nil)
}

func TestANumericUserNeedsNoName(t *testing.T) {
	a := claimed(t)
	if r := a.run(map[string]any{"cmd": "id -u; id -g", "user": "54999", "cwd": "/"}); r.stdout != "54999\n54999\n" {
		t.Errorf("%q", r.stdout)
	}
	if r := a.run(map[string]any{"cmd": "id -u", "user": "54321"}); r.stdout != "54321\n" {
		t.Errorf("%q", r.stdout)
	}
}

func TestADeathBySignalSaysSo(t *testing.T) {
	a := claimed(t)
	r := a.run(map[string]any{"cmd": "kill -TERM $$"})
	if r.exit.ExitCode != 143 || r.exit.Signal == nil || *r.exit.Signal != "SIGTERM" || r.exit.Reason != "signaled" {
		t.Errorf("%+v", r.exit)
	}
}

func TestAProcessIsListedAndOutlivesItsReader(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "echo one; read x; echo $x", "kind": "background", "stdin": true, "tag": "mine", "env": map[string]string{"A": "b"}})
	var view processView
	_, text := a.call("GET", "/v1/processes/"+p.ID, nil)
	json.Unmarshal([]byte(text), &view)
	if !view.Running || view.Exit != nil || view.Tag != "mine" || view.Env["A"] != "b" || view.User != "user" || view.Cwd != a.home || view.Kind != "background" {
		t.Errorf("%s", text)
	}
	eventually(t, "the first line", func() bool {
		_, body := a.call("GET", "/v1/processes/"+p.ID+"/output", nil)
		return joined(parseFrames(t, []byte(body)), frameStdout) == "one\n"
	})
	a.want(200, `{"written":4}`, "POST", "/v1/processes/"+p.ID+"/stdin", []byte("two\n"))
	_, body := a.call("GET", "/v1/processes/"+p.ID+"/output?after=1&follow=true", nil)
	if r := a.resultOf([]byte(body)); r.stdout != "two\n" || r.frames[0].number != 2 || r.frames[1].number != 3 {
		t.Errorf("%+v", r.frames)
	}
	// Once more from the start, after the end.
	_, body = a.call("GET", "/v1/processes/"+p.ID+"/output", nil)
	if r := a.resultOf([]byte(body)); r.stdout != "one\ntwo\n" {
		t.Errorf("%+v", r.frames)
	}
	a.wantCode("stdin_closed", "POST", "/v1/processes/"+p.ID+"/stdin", []byte("x"))
	a.want(200, `{"killed":false}`, "DELETE", "/v1/processes/"+p.ID, nil)
	a.wantCode("not_found", "GET", "/v1/processes/"+p.ID, nil)
}

func TestTheEndDoesNotWaitForBackgroundChildrenNorKillThem(t *testing.T) {
	a := claimed(t)
	done := filepath.Join(a.home, "done")
	begun := time.Now()
	r := a.run(map[string]any{"cmd": fmt.Sprintf("(sleep 0.6; echo late; sleep 0.1; echo later; echo ok > %s) & echo now", done)})
	if took := time.Since(begun); took > 500*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if r.stdout != "now\n" {
		t.Errorf("%q", r.stdout)
	}
	eventually(t, "the child ends its work", func() bool { _, err := os.Stat(done); return err == nil })
}

func TestNoOutputIsLostAtTheEnd(t *testing.T) {
	a := claimed(t)
	var all sync.WaitGroup
	for i := 0; i < 4; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for j := 0; j < 25; j++ {
				if r := a.run(map[string]any{"cmd": "printf %s out; printf %s err >&2"}); r.stdout != "out" || r.stderr != "err" {
					t.Errorf("%q %q", r.stdout, r.stderr)
				}
			}
		}()
	}
	all.Wait()
}

func TestASlowFollowerGetsEverythingThoughTheLeaderEndedLongAgo(t *testing.T) {
	a := claimed(t)
	res := a.send("POST", "/v1/start-and-follow", map[string]any{"cmd": "head -c 30000000 /dev/zero"})
	defer res.Body.Close()
	time.Sleep(400 * time.Millisecond)
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r := a.resultOf(data); len(r.stdout) != 30_000_000 {
		t.Errorf("%d bytes", len(r.stdout))
	}
}

func TestNobodysAbsenceStopsAProcess(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "head -c 20000000 /dev/zero; echo END"})
	eventually(t, "the end", func() bool {
		_, text := a.call("GET", "/v1/processes/"+p.ID, nil)
		return strings.Contains(text, `"running":false`)
	})
	_, body := a.call("GET", "/v1/processes/"+p.ID+"/output", nil)
	r := a.resultOf([]byte(body))
	if r.frames[0].kind != frameGap || r.frames[0].number+1 != r.frames[1].number || !strings.HasSuffix(r.stdout, "END\n") {
		t.Errorf("first frames %d %d", r.frames[0].kind, r.frames[1].kind)
	}
	var gap struct {
		Lost int `json:"lost_bytes"`
	}
	json.Unmarshal([]byte(r.frames[0].payload), &gap)
	if gap.Lost+len(r.stdout) != 20_000_004 {
		t.Errorf("lost %d and got %d", gap.Lost, len(r.stdout))
	}
}

func TestSignalsReachTheGroupAlsoAfterItsLeader(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.02; done"})
	eventually(t, "ready", func() bool {
		_, body := a.call("GET", "/v1/processes/"+p.ID+"/output", nil)
		return strings.Contains(body, "ready")
	})
	a.wantCode("bad_request", "POST", "/v1/processes/"+p.ID+"/signal", map[string]any{"signal": "SIGNONE"})
	a.wantCode("bad_request", "POST", "/v1/processes/"+p.ID+"/signal", map[string]any{"signal": 0})
	a.want(200, `{"delivered":true}`, "POST", "/v1/processes/"+p.ID+"/signal", map[string]any{"signal": "SIGUSR1", "group": false})
	_, body := a.call("GET", "/v1/processes/"+p.ID+"/output?follow=true", nil)
	if r := a.resultOf([]byte(body)); r.exit.ExitCode != 9 {
		t.Errorf("%+v", r.exit)
	}
	a.want(200, `{"delivered":false}`, "POST", "/v1/processes/"+p.ID+"/signal", map[string]any{"signal": 15})

	r := a.run(map[string]any{"cmd": "sleep 100 & echo $!"})
	var pid int
	fmt.Sscan(r.stdout, &pid)
	a.want(200, `{"delivered":true}`, "POST", "/v1/processes/"+r.start.ID+"/signal", map[string]any{"signal": 9})
	eventually(t, "the child is gone", func() bool { return gone(pid) })
}

// gone tells whether a process has ended; a zombie has, its parent just has not looked yet.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func TestDeleteEndsTheGroup(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "sleep 100 & sleep 101"})
	res := a.send("GET", "/v1/processes/"+p.ID+"/output?follow=true", nil)
	defer res.Body.Close()
	a.want(200, `{"killed":true}`, "DELETE", "/v1/processes/"+p.ID, nil)
	data, _ := io.ReadAll(res.Body)
	if r := a.resultOf(data); *r.exit.Signal != "SIGKILL" || r.exit.ExitCode != 137 {
		t.Errorf("%+v", r.exit)
	}
	if err := syscall.Kill(-p.PID, 0); err != syscall.ESRCH {
		eventually(t, "the group is gone", func() bool { return syscall.Kill(-p.PID, 0) == syscall.ESRCH })
	}
}

func TestStdinIsBoundedAndClosedAfterItsQueue(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "read x; cat | wc -c", "stdin": true})
	path := "/v1/processes/" + p.ID + "/stdin"
	a.want(200, `{"written":1048576}`, "POST", path, make([]byte, 1<<20))
	a.wantCode("stdin_full", "POST", path, make([]byte, 1<<20))
	a.wantCode("bad_request", "POST", path, make([]byte, 1<<20+1))
	a.want(200, `{"written":3}`, "POST", path, []byte("\nab"))
	a.want(200, `{}`, "POST", path+"/close", nil)
	a.wantCode("stdin_closed", "POST", path, []byte("x"))
	_, body := a.call("GET", "/v1/processes/"+p.ID+"/output?follow=true", nil)
	if r := a.resultOf([]byte(body)); r.stdout != "2\n" {
		t.Errorf("%q", r.stdout)
	}
	q := a.start(map[string]any{"cmd": "sleep 1"})
	a.wantCode("stdin_closed", "POST", "/v1/processes/"+q.ID+"/stdin", []byte("x"))
	a.wantCode("bad_request", "POST", "/v1/processes/"+q.ID+"/resize", map[string]int{"cols": 80, "rows": 24})
}

func TestATerminalHasASizeAndAnEnd(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"kind": "pty", "cmd": "stty size; trap 'stty size' WINCH; echo $TERM; read x; echo got $x; cat", "cols": 100, "rows": 30})
	path := "/v1/processes/" + p.ID
	sees := func(text string) {
		t.Helper()
		eventually(t, text, func() bool {
			_, body := a.call("GET", path+"/output", nil)
			return strings.Contains(joined(parseFrames(t, []byte(body)), frameTerminal), text)
		})
	}
	sees("30 100\r\nxterm-256color\r\n")
	a.wantCode("bad_request", "POST", path+"/resize", map[string]int{"cols": 0, "rows": 24})
	a.want(200, `{}`, "POST", path+"/resize", map[string]int{"cols": 120, "rows": 40})
	a.want(200, `{"written":4}`, "POST", path+"/stdin", []byte("abc\n"))
	sees("40 120") // the shell runs a trap when read returns
	sees("got abc")
	a.want(200, `{}`, "POST", path+"/stdin/close", nil)
	_, body := a.call("GET", path+"/output?follow=true", nil)
	if r := a.resultOf([]byte(body)); r.exit.ExitCode != 0 {
		t.Errorf("%+v", r.exit)
	}
}

func TestATerminalWithoutACommandIsALoginShell(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"kind": "pty"})
	a.call("POST", "/v1/processes/"+p.ID+"/stdin", []byte("shopt login_shell; echo $0; exit 5\n"))
	_, body := a.call("GET", "/v1/processes/"+p.ID+"/output?follow=true", nil)
	r := a.resultOf([]byte(body))
	if !strings.Contains(r.stdout, "on\r\n-bash\r\n") || r.exit.ExitCode != 5 {
		t.Errorf("%q %+v", r.stdout, r.exit)
	}
}

func TestEndedProcessesAreForgottenOldestFirst(t *testing.T) {
	a := claimed(t)
	ps := a.agent.processes
	for i := 0; i < maxEndedProcesses+5; i++ {
		p := &process{id: fmt.Sprint("x", i), serial: uint64(i), out: newOutput(ps.budget), status: new(syscall.WaitStatus)}
		ps.mu.Lock()
		ps.table[p.id] = p
		ps.live++
		ps.mu.Unlock()
		p.out.append(frameStdout, []byte("x"))
		ps.finish(p)
	}
	if _, err := ps.get("x4"); err == nil {
		t.Error("x4 is still there")
	}
	if _, err := ps.get("x5"); err != nil {
		t.Error(err)
	}
	if n := len(ps.list()); n != maxEndedProcesses {
		t.Errorf("%d are kept", n)
	}
	if want := int64(maxEndedProcesses * (1 + entryCost)); ps.budget.total.Load() != want {
		t.Errorf("%d bytes are accounted, want %d", ps.budget.total.Load(), want)
	}
}

func TestTooManyFollowersAreRefused(t *testing.T) {
	a := claimed(t)
	p := a.start(map[string]any{"cmd": "sleep 100"})
	for i := 0; i < maxFollowers; i++ {
		res := a.send("GET", "/v1/processes/"+p.ID+"/output?follow=true", nil)
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
	}
	a.wantCode("too_many", "GET", "/v1/processes/"+p.ID+"/output?follow=true", nil)
}

func TestShellArgs(t *testing.T) {
	for _, c := range []struct {
		cmd   string
		login bool
		want  []string
	}{
		{"x y", false, []string{"/bin/bash", "-c", "x y"}},
		{"x y", true, []string{"-bash", "-c", "x y"}},
		{"", true, []string{"-bash"}},
	} {
		if got := shellArgs("/bin/bash", c.cmd, c.login); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%q: %q", c.cmd, got)
		}
	}
	long := shellArgs("/bin/sh", strings.Repeat("x", 2*maxArgument+1), false)
	if len(long) != 7 || long[2] != `eval "set --; ${1}${2}${3}"` || len(long[6]) != 1 {
		t.Errorf("%d arguments, %q", len(long), long[2])
	}
}
