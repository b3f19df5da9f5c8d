package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// withSudo gives a claimed agent a sudo of its own: returns the environment in which `sudo` is found.
func withSudo(t *testing.T) (*testAgent, map[string]string) {
	a := claimed(t)
	bin := filepath.Join(a.root, "bin")
	os.MkdirAll(bin, 0o755)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// A copy: the directory of the test binary is closed to other users.
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "sudo"), text, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(a.root, "sudo.sock")
	user, _ := a.agent.accounts.find("user")
	server := newSudoServer(socket, a.agent.accounts, reaperForTests, newLauncher(nil))
	if err := server.open(user, user); err != nil {
		t.Fatal(err)
	}
	a.sudo = server
	return a, map[string]string{"PATH": bin + ":" + defaultPath, "PADDOCK_TEST_SUDO_SOCKET": socket}
}

func TestSudoRunsACommandAsRoot(t *testing.T) {
	a, env := withSudo(t)
	for _, c := range []struct {
		cmd, stdout, stderr string
		code                int
	}{
		{"sudo -n true", "", "", 0},
		{"sudo id -u", "0\n", "", 0},
		{"sudo bash -c 'exit 7'", "", "", 7},
		{"echo x | sudo cat - /dev/null", "x\n", "", 0},
		{"sudo sh -c 'echo out; echo err >&2'", "out\n", "err\n", 0},
		{"sudo -u user id -u; sudo -u '#54321' id -u; sudo -u 54999 id -u", "54321\n54321\n54999\n", "", 0},
		{"sudo -g extra id -g", "54322\n", "", 0},
		{"cd /usr; sudo pwd; sudo -D /etc pwd", "/usr\n/etc\n", "", 0},
		{"A=b sudo C=d sh -c 'echo $A $C $USER $LOGNAME $HOME $SUDO_USER $SUDO_UID'", "b d root root " + a.home + " user 54321\n", "", 0},
		{"HOME=/x sudo printenv HOME; HOME=/x sudo -E printenv HOME; HOME=/x sudo -EH printenv HOME | head -1", a.home + "\n/x\n/x\n", "", 0},
		{"sudo -i pwd; sudo -s echo 'a  b' '$HOME|'", a.home + "\na  b " + a.home + "|\n", "", 0},
		{"sudo -k; sudo -v; sudo -k true; sudo -- id -u; sudo --user=user --non-interactive id -u", "0\n54321\n", "", 0},
		{"sudo no-such-command", "", "sudo: no-such-command: command not found\n", 1},
		{"sudo -u nobody-here id", "", "sudo: unknown user nobody-here\n", 1},
		{"sudo", "", sudoUsage, 1},
		{"sudo sh -c 'kill -9 $$'; echo $?", "137\n", "", 0},
		{"sudo sleep 100 & sleep 0.3; kill -TERM $!; wait $!; echo $?", "143\n", "", 0},
		{"sudo sh -c 'trap \"echo got; exit 3\" HUP; echo >/dev/null; while :; do sleep 0.02; done' & sleep 0.4; kill -HUP $!; wait $!; echo $?", "got\n3\n", "", 0},
		{"sudo -l | tail -1", "    (ALL : ALL) NOPASSWD: ALL\n", "", 0},
		{"sudo cat <&-; sudo true >&-; echo $?", "0\n", "", 0},
	} {
		r := a.run(map[string]any{"cmd": c.cmd, "env": env})
		stderr := r.stderr
		if strings.Contains(stderr, "Killed") || stderr == "Hangup\n" {
			stderr = "" // the shell's own remark
		}
		if r.stdout != c.stdout || stderr != c.stderr || r.exit.ExitCode != c.code {
			t.Errorf("%s\n got %q %q %d\nwant %q %q %d", c.cmd, r.stdout, r.stderr, r.exit.ExitCode, c.stdout, c.stderr, c.code)
		}
	}
}

func TestSudoIsClosedAndOpenedAgain(t *testing.T) {
	a, env := withSudo(t)
	server := a.sudo
	user, _ := a.agent.accounts.find("user")
	inode := func() uint64 {
		fi, err := os.Stat(server.path)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Sys().(*syscall.Stat_t).Ino
	}
	before := inode()
	if err := server.open(user, account{UID: 54999}); err != nil || inode() != before {
		t.Errorf("an open socket was replaced: %v", err)
	}
	if r := a.run(map[string]any{"cmd": "sudo id -u", "env": env, "user": "54999", "cwd": "/"}); r.stdout != "0\n" {
		t.Errorf("the default user: %q %q", r.stdout, r.stderr)
	}
	long := a.start(map[string]any{"cmd": "sudo sh -c 'read x; id -u'", "env": env, "stdin": true})
	eventually(t, "sudo runs", func() bool { return server.active.Load() == 1 })
	server.close()
	server.close()
	if r := a.run(map[string]any{"cmd": "sudo id -u", "env": env}); r.exit.ExitCode != 1 {
		t.Errorf("%q %+v", r.stdout, r.exit)
	}
	a.call("POST", "/v1/processes/"+long.ID+"/stdin", []byte("\n"))
	_, output := a.call("GET", "/v1/processes/"+long.ID+"/output?follow=true", nil)
	if r := a.resultOf([]byte(output)); r.stdout != "0\n" {
		t.Errorf("what ran already: %q %q", r.stdout, r.stderr)
	}
	if err := server.open(user, user); err != nil {
		t.Fatal(err)
	}
	if r := a.run(map[string]any{"cmd": "sudo id -u", "env": env}); r.stdout != "0\n" {
		t.Errorf("%q %q", r.stdout, r.stderr)
	}
	os.Remove(server.path) // by somebody in the sandbox
	if err := server.open(user, user); err != nil {
		t.Fatal(err)
	}
	if r := a.run(map[string]any{"cmd": "sudo id -u", "env": env}); r.stdout != "0\n" {
		t.Errorf("%q %q", r.stdout, r.stderr)
	}
}

func TestSudoIsClosedToOtherUsers(t *testing.T) {
	a, env := withSudo(t)
	r := a.run(map[string]any{"cmd": "sudo id", "env": env, "user": "54999", "cwd": "/"})
	if r.exit.ExitCode != 1 || r.stderr != "sudo: this user may not run sudo in this sandbox\n" {
		t.Errorf("%q %+v", r.stderr, r.exit)
	}
	env["PADDOCK_TEST_SUDO_SOCKET"] = a.root + "/not-there"
	r = a.run(map[string]any{"cmd": "sudo id", "env": env})
	if r.exit.ExitCode != 1 || r.stderr != "sudo: sudo is switched off in this sandbox\n" {
		t.Errorf("%q %+v", r.stderr, r.exit)
	}
}

func TestACommandOfSudoDiesWithItsCaller(t *testing.T) {
	a, env := withSudo(t)
	p := a.start(map[string]any{"cmd": "sudo sh -c 'echo $$; exec sleep 100'", "env": env})
	var pid int
	eventually(t, "its pid", func() bool {
		_, body := a.call("GET", "/v1/processes/"+p.ID+"/output", nil)
		fmt.Sscan(joined(parseFrames(t, []byte(body)), frameStdout), &pid)
		return pid > 0
	})
	a.call("DELETE", "/v1/processes/"+p.ID, nil)
	eventually(t, "the command is gone", func() bool { return gone(pid) })
}

func TestSudoOnATerminalHasATerminalOfItsOwn(t *testing.T) {
	a, env := withSudo(t)
	p := a.start(map[string]any{"kind": "pty", "cols": 90, "rows": 20, "env": env,
		"cmd": `tty; sudo sh -c 'tty; stty size; read x; echo "got $x"; trap "echo interrupted" INT; echo waiting; sleep 100; exit 4'; echo "code $?"; stty -a | grep -o ' echo '`})
	path := "/v1/processes/" + p.ID
	text := func() string {
		_, body := a.call("GET", path+"/output", nil)
		return joined(parseFrames(t, []byte(body)), frameTerminal)
	}
	eventually(t, "the size", func() bool { return strings.Contains(text(), "20 90\r\n") })
	a.call("POST", path+"/stdin", []byte("abc\n"))
	eventually(t, "input", func() bool { return strings.Contains(text(), "got abc\r\n") && strings.Contains(text(), "waiting") })
	time.Sleep(100 * time.Millisecond)
	a.call("POST", path+"/stdin", []byte{3})
	_, body := a.call("GET", path+"/output?follow=true", nil)
	all := a.resultOf([]byte(body)).stdout
	if !strings.Contains(all, "interrupted\r\n") || !strings.Contains(all, "code 4\r\n echo ") {
		t.Errorf("%q", all)
	}
	lines := strings.Split(all, "\r\n")
	if !strings.HasPrefix(lines[0], "/dev/pts/") || !strings.HasPrefix(lines[1], "/dev/pts/") || lines[0] == lines[1] {
		t.Errorf("%q", lines[:2])
	}
}

func TestSudoArguments(t *testing.T) {
	for line, want := range map[string]string{
		"-u ann -g staff id":   "run u=ann g=staff [id]",
		"-uann -nE id -u":      "run u=ann E [id -u]",
		"--user ann --login x": "run u=ann i [x]",
		"--preserve-env=A,B x": "run [x]",
		"A=1 B=2 env C=3":      "run a=[A=1 B=2] [env C=3]",
		"-- -x":                "run [-x]",
		"-p prompt -C 3 -S x":  "run [x]",
		"-V":                   "version []",
		"-h":                   "help []",
		"-l":                   "list []",
		"-v":                   "check []",
		"-k":                   "forget []",
		"":                     "usage []",
		"-s":                   "run s []",
		"-b x":                 "run b [x]",
		"./a=b c":              "run [./a=b c]",
		"--bogus":              "unrecognized option '--bogus'",
		"-u":                   "option requires an argument -- 'u'",
		"-e /etc/hosts":        "the option -e is not supported in a sandbox",
	} {
		o, err := parseSudoArgs(strings.Fields(line))
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			r := o.request
			parts := []string{o.action}
			for _, flag := range []struct {
				on   bool
				text string
			}{{r.User != "", "u=" + r.User}, {r.PreserveEnv, "E"}, {r.Login, "i"}, {r.Shell, "s"}, {r.Background, "b"}} {
				if flag.on {
					parts = append(parts, flag.text)
				}
			}
			if r.Group != "" {
				parts = append(parts, "g="+r.Group)
			}
			if len(r.Assignments) > 0 {
				parts = append(parts, fmt.Sprint("a=", r.Assignments))
			}
			got = strings.Join(append(parts, fmt.Sprint(r.Argv)), " ")
		}
		if got != want {
			t.Errorf("%q: %s, want %s", line, got, want)
		}
	}
}

func TestEscapeForShell(t *testing.T) {
	if got := escapeForShell([]string{"a b", "c'd", "$HOME", "e\nf", "-x_1", "é"}); got != `a\ b c\'d $HOME e'`+"\n"+`'f -x_1 é` {
		t.Error(got)
	}
}
