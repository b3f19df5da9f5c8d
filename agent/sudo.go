package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// sudoSocket is where client and agent meet; tests have a place of their own.
var sudoSocket = "/run/paddock/sudo.sock"

const (
	maxSudo        = 256
	maxSudoMessage = 4 << 20
)

// The kernel of the sandbox knows no set-uid, so sudo asks the agent. Client and agent speak over a Unix socket: a
// message is 4 bytes of length and JSON. The client's first message brings its three descriptors; afterwards it sends
// one byte per signal. The agent answers with sudoStarted and then sudoEnded. Who may open the socket may be root:
// its mode is the whole protection, which is enough because nothing else in the sandbox is worth more than root.

// sudoRequest is what the client asks for.
type sudoRequest struct {
	Argv        []string `json:"argv"`
	Env         []string `json:"env"`
	Assignments []string `json:"assignments"` // NAME=value words before the command
	Cwd         string   `json:"cwd"`
	User        string   `json:"user"`
	Group       string   `json:"group"`
	Login       bool     `json:"login"`        // -i
	Shell       bool     `json:"shell"`        // -s
	PreserveEnv bool     `json:"preserve_env"` // -E
	Background  bool     `json:"background"`   // -b
	Terminal    bool     `json:"terminal"`     // standard input and output are a terminal: give the command one of its own
	Rows        uint16   `json:"rows"`
	Cols        uint16   `json:"cols"`
	UID         uint32   `json:"uid"`
	GID         uint32   `json:"gid"`
}

// sudoStarted tells that the command runs, or why it does not. With a terminal, its master comes along.
type sudoStarted struct {
	Error string `json:"error,omitempty"`
}

// sudoEnded tells how it ended.
type sudoEnded struct {
	ExitCode int `json:"exit_code"`
	Signal   int `json:"signal"`
}

type sudoServer struct {
	path     string
	accounts *accounts
	reaper   *reaper
	launcher *launcher
	active   atomic.Int32
	listener *net.UnixListener // nil while closed; open and close are called one at a time
}

func newSudoServer(path string, accounts *accounts, reaper *reaper, launcher *launcher) *sudoServer {
	return &sudoServer{path: path, accounts: accounts, reaper: reaper, launcher: launcher}
}

// open makes the socket: for the group of `user`, and for the default user of the sandbox if that is another one. One
// that is open already gets its owner, so that nobody who is about to call is turned away.
func (s *sudoServer) open(user, defaultUser account) error {
	owner := 0
	if defaultUser.UID != user.UID {
		owner = int(defaultUser.UID)
	}
	if s.listener != nil && os.Lchown(s.path, owner, int(user.GID)) == nil {
		return nil
	}
	s.close()
	// Made in a directory nobody else may enter and moved when its mode is right, so that there is no moment in which
	// it is open to all.
	private := filepath.Join(filepath.Dir(s.path), "private")
	if err := os.Mkdir(private, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	staged := filepath.Join(private, "sudo.sock")
	os.Remove(staged)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: staged, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	err = os.Chown(staged, owner, int(user.GID))
	if err == nil {
		err = os.Chmod(staged, 0o660)
	}
	if err == nil {
		err = os.Rename(staged, s.path)
	}
	if err != nil {
		l.Close()
		return err
	}
	s.listener = l
	go s.serve(l)
	return nil
}

// close takes the socket away. Commands that run go on.
func (s *sudoServer) close() {
	os.Remove(s.path)
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

func (s *sudoServer) serve(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if s.active.Add(1) > maxSudo {
			s.active.Add(-1)
			conn.Close()
			continue
		}
		go guard("sudo", func() {
			defer s.active.Add(-1)
			defer conn.Close()
			s.handle(conn)
		})
	}
}

func (s *sudoServer) handle(conn *net.UnixConn) {
	patience := afterRunning(10*time.Second, func() { conn.SetDeadline(time.Now()) })
	defer func() { patience() }()
	var req sudoRequest
	fds, err := receiveMessage(conn, &req, 3)
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	if err != nil {
		return
	}
	var master *os.File
	ended := make(chan syscall.WaitStatus, 1)
	pid, err := func() (int, error) {
		if len(fds) != 3 {
			return 0, errors.New("three descriptors are needed")
		}
		run, err := s.plan(req)
		if err != nil {
			return 0, err
		}
		files := []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2])}
		if req.Terminal {
			var slave *os.File
			master, slave, err = openPTY(run.account.UID, windowSize{Rows: req.Rows, Cols: req.Cols})
			if err != nil {
				return 0, err
			}
			defer slave.Close()
			files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
		}
		attr := &syscall.ProcAttr{Dir: run.dir, Env: run.env, Files: files, Sys: &syscall.SysProcAttr{
			Setsid: true, Setctty: req.Terminal, Credential: run.account.credential()}}
		return s.reaper.start(
			func() (int, error) { return s.launcher.forkExec(0, run.path, run.argv, attr) },
			func(status syscall.WaitStatus) { ended <- status })
	}()
	if master != nil {
		defer master.Close()
	}
	if err != nil {
		if errors.Is(err, syscall.EAGAIN) {
			err = errors.New("unable to fork: the limit of processes in the sandbox is reached")
		}
		sendMessage(conn, sudoStarted{Error: err.Error()})
		return
	}
	for i, fd := range fds { // the command has its own now; a pipe must not stay open because of the agent
		syscall.Close(fd)
		fds[i] = -1
	}
	if master != nil {
		// The client alone holds the terminal from here on: it closes, and hangs up, when the client dies.
		raw := int(master.Fd())
		sendMessage(conn, sudoStarted{}, raw)
		master.Close()
	} else {
		sendMessage(conn, sudoStarted{})
	}
	patience()
	conn.SetDeadline(time.Time{})
	if req.Background {
		return
	}
	var gone sync.WaitGroup
	gone.Add(1)
	go guard("sudo", func() {
		defer gone.Done()
		var sig [16]byte
		for {
			n, err := conn.Read(sig[:])
			for _, b := range sig[:n] {
				if b >= 1 && b <= maxSignal {
					if syscall.Signal(b) == syscall.SIGWINCH {
						signalSession("/proc", pid, syscall.SIGWINCH)
						continue
					}
					s.reaper.signal(pid, syscall.Signal(b), true)
				}
			}
			if err != nil {
				// The caller has died, and its command with it. Nothing happens if it was the command that ended.
				s.reaper.signal(pid, syscall.SIGKILL, true)
				return
			}
		}
	})
	status := <-ended
	end := sudoEnded{ExitCode: status.ExitStatus()}
	if status.Signaled() {
		end = sudoEnded{ExitCode: 128 + int(status.Signal()), Signal: int(status.Signal())}
	}
	patience = afterRunning(10*time.Second, func() { conn.SetDeadline(time.Now()) })
	sendMessage(conn, end)
	conn.Close()
	gone.Wait()
}

// sudoPlan is what will be executed.
type sudoPlan struct {
	account account
	path    string
	argv    []string
	env     []string
	dir     string
}

// plan turns a request into a program, its environment and its credentials.
func (s *sudoServer) plan(req sudoRequest) (*sudoPlan, error) {
	if req.User == "" {
		req.User = "root"
	}
	target, err := s.accounts.find(strings.TrimPrefix(req.User, "#"))
	if err != nil {
		return nil, fmt.Errorf("unknown user %s", req.User)
	}
	if req.Group != "" {
		gid, ok := s.accounts.findGroup(strings.TrimPrefix(req.Group, "#"))
		if !ok {
			return nil, fmt.Errorf("unknown group %s", req.Group)
		}
		target.GID = gid
	}
	env := sudoEnv(req, target, s.accounts.nameOf(req.UID))
	run := &sudoPlan{account: target, argv: req.Argv, dir: req.Cwd}
	if run.dir == "" {
		run.dir = "/"
	}
	if req.Login {
		run.dir = target.Home
		if fi, err := os.Stat(run.dir); err != nil || !fi.IsDir() {
			run.dir = "/"
		}
	}
	if req.Login || req.Shell {
		run.path = env["SHELL"]
		if fi, err := os.Stat(run.path); err != nil || !fi.Mode().IsRegular() {
			run.path = shell()
		}
		if run.path == "" {
			return nil, errors.New("the sandbox has no shell")
		}
		argv0 := run.path
		if req.Login {
			argv0 = "-" + filepath.Base(run.path)
		}
		run.argv = []string{argv0}
		if len(req.Argv) > 0 {
			run.argv = append(run.argv, "-c", escapeForShell(req.Argv))
		}
	} else {
		if len(req.Argv) == 0 || req.Argv[0] == "" {
			return nil, errors.New("no command was given")
		}
		if run.path = findProgram(req.Argv[0], env["PATH"], run.dir); run.path == "" {
			return nil, fmt.Errorf("%s: command not found", req.Argv[0])
		}
	}
	env["SUDO_COMMAND"] = strings.Join(append([]string{run.path}, run.argv[1:]...), " ")
	if len(env["SUDO_COMMAND"]) > 4096 {
		env["SUDO_COMMAND"] = env["SUDO_COMMAND"][:4096]
	}
	for k, v := range env {
		if strings.IndexByte(k, 0) < 0 && strings.IndexByte(v, 0) < 0 {
			run.env = append(run.env, k+"="+v)
		}
	}
	return run, nil
}

// sudoEnv is the caller's environment with the identity of the target. The PATH stays: in a sandbox a command that
// the user has is one that sudo should find.
func sudoEnv(req sudoRequest, target account, caller string) map[string]string {
	env := map[string]string{}
	for _, kv := range req.Env {
		k, v, _ := strings.Cut(kv, "=")
		if k == "" {
			continue
		}
		if req.Login && !keptByLogin(k) {
			continue
		}
		env[k] = v
	}
	if env["PATH"] == "" || req.Login {
		env["PATH"] = defaultPath
	}
	home, hadHome := env["HOME"]
	env["HOME"] = target.Home
	if req.PreserveEnv && hadHome {
		env["HOME"] = home
	}
	env["USER"], env["LOGNAME"] = target.Name, target.Name
	if target.shell != "" && (req.Login || !req.Shell) || env["SHELL"] == "" {
		env["SHELL"] = target.shell
	}
	if env["SHELL"] == "" {
		env["SHELL"] = shell()
	}
	env["SUDO_USER"] = caller
	env["SUDO_UID"] = strconv.FormatUint(uint64(req.UID), 10)
	env["SUDO_GID"] = strconv.FormatUint(uint64(req.GID), 10)
	for _, kv := range req.Assignments {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	return env
}

// keptByLogin are the variables that a login shell of sudo takes over; the bundle's are the sandbox's own.
func keptByLogin(name string) bool {
	if name == "TERM" || name == "COLORTERM" || name == "LANG" || name == "TZ" || name == "DISPLAY" || strings.HasPrefix(name, "LC_") {
		return true
	}
	return isCAVariable(name)
}

// escapeForShell quotes as sudo does: everything but letters, digits, "_", "-" and "$".
func escapeForShell(argv []string) string {
	var b strings.Builder
	for i, arg := range argv {
		if i > 0 {
			b.WriteByte(' ')
		}
		for j := 0; j < len(arg); j++ {
			c := arg[j]
			plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '$' || c >= 0x80
			if c == '\n' {
				b.WriteString("'\n'")
				continue
			}
			if !plain {
				b.WriteByte('\\')
			}
			b.WriteByte(c)
		}
	}
	return b.String()
}

// findProgram looks a command up as execvp does.
func findProgram(name, path, dir string) string {
	executable := func(p string) bool {
		fi, err := os.Stat(p)
		return err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0
	}
	if strings.Contains(name, "/") {
		full := name
		if !filepath.IsAbs(full) {
			full = filepath.Join(dir, full)
		}
		if executable(full) {
			return full
		}
		return ""
	}
	for _, d := range filepath.SplitList(path) {
		if d == "" {
			d = "."
		}
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		if p := filepath.Join(d, name); executable(p) {
			return p
		}
	}
	return ""
}

// sendMessage writes one message; descriptors go with its length.
func sendMessage(conn *net.UnixConn, value any, fds ...int) error {
	body, err := json.Marshal(value)
	if err != nil {
		return err
	}
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(body)))
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	if _, _, err := conn.WriteMsgUnix(head[:], rights, nil); err != nil {
		return err
	}
	_, err = conn.Write(body)
	return err
}

// receiveMessage reads one message and at most limit descriptors, which are the caller's to close also if it fails.
func receiveMessage(conn *net.UnixConn, into any, limit int) (fds []int, err error) {
	var head [4]byte
	oob := make([]byte, syscall.CmsgSpace(4*limit))
	n, oobn, _, _, err := conn.ReadMsgUnix(head[:], oob)
	if messages, parseErr := syscall.ParseSocketControlMessage(oob[:oobn]); parseErr == nil {
		for i := range messages {
			if rights, rightsErr := syscall.ParseUnixRights(&messages[i]); rightsErr == nil {
				fds = append(fds, rights...)
			}
		}
	}
	if err != nil {
		return fds, err
	}
	if n == 0 {
		return fds, io.EOF
	}
	if _, err := io.ReadFull(conn, head[n:]); err != nil {
		return fds, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxSudoMessage {
		return fds, errors.New("the message is too long")
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(conn, body); err != nil {
		return fds, err
	}
	return fds, json.Unmarshal(body, into)
}
