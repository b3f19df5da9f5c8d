package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxLiveProcesses  = 4096
	maxEndedProcesses = 256
	maxTag            = 1024
	exitGrace         = 100 * time.Millisecond

	// The kernel takes no longer single argument (MAX_ARG_STRLEN, with its NUL).
	maxArgument = 128<<10 - 1
)

// startRequest is the body of POST /v1/processes.
type startRequest struct {
	Cmd   string            `json:"cmd"`
	Argv  []string          `json:"argv"` // run as it is, without a shell; Cmd is then only shown
	Kind  string            `json:"kind"`
	User  string            `json:"user"`
	Cwd   string            `json:"cwd"`
	Env   map[string]string `json:"env"`
	Stdin bool              `json:"stdin"`
	Cols  int               `json:"cols"`
	Rows  int               `json:"rows"`
	Login bool              `json:"login"`
	Tag   string            `json:"tag"`
}

// exitStatus is how a process ended.
type exitStatus struct {
	ExitCode int     `json:"exit_code"`
	Signal   *string `json:"signal"`
	Reason   string  `json:"reason"`
}

func exitOf(status syscall.WaitStatus) *exitStatus {
	if status.Signaled() {
		name := signalName(status.Signal())
		return &exitStatus{128 + int(status.Signal()), &name, "signaled"}
	}
	return &exitStatus{status.ExitStatus(), nil, "exited"}
}

// process is one process started through the API: its leader, its streams and what it wrote.
type process struct {
	id        string
	serial    uint64
	pid       int
	req       startRequest
	user, cwd string
	startedAt int64
	out       *output
	in        *stdinPipe
	terminal  *os.File
	streams   []*outStream

	mu       sync.Mutex
	open     int                 // streams that have not ended
	status   *syscall.WaitStatus // the leader has ended
	exit     *exitStatus         // and so has its output, as far as it counts
	outOfMem bool                // the memory watch ended one of its processes
}

// processView is a process as the API shows it.
type processView struct {
	ID        string            `json:"id"`
	PID       int               `json:"pid"`
	Cmd       string            `json:"cmd"`
	Kind      string            `json:"kind"`
	User      string            `json:"user"`
	Cwd       string            `json:"cwd"`
	Env       map[string]string `json:"env"`
	Tag       string            `json:"tag"`
	StartedAt int64             `json:"started_at_ms"`
	Running   bool              `json:"running"`
	Exit      *exitStatus       `json:"exit"`
}

func (p *process) view() processView {
	p.mu.Lock()
	defer p.mu.Unlock()
	env := p.req.Env
	if env == nil {
		env = map[string]string{}
	}
	return processView{p.id, p.pid, p.req.Cmd, p.req.Kind, p.user, p.cwd, env, p.req.Tag, p.startedAt, p.exit == nil, p.exit}
}

// processes starts processes and keeps them by id.
type processes struct {
	accounts *accounts
	reaper   *reaper
	launcher *launcher
	events   *eventLog
	budget   *outputBudget
	serial   atomic.Uint64

	mu    sync.Mutex
	table map[string]*process
	live  int
	ended []*process // oldest first
}

func newProcesses(accounts *accounts, reaper *reaper, launcher *launcher, events *eventLog) *processes {
	ps := &processes{accounts: accounts, reaper: reaper, launcher: launcher, events: events,
		budget: newOutputBudget(maxOutputPerProcess, maxOutputInAll), table: map[string]*process{}}
	ps.budget.victims = func() []*output {
		ps.mu.Lock()
		defer ps.mu.Unlock()
		outs := make([]*output, len(ps.ended))
		for i, p := range ps.ended {
			outs[i] = p.out
		}
		return outs
	}
	return ps
}

// shell returns the sandbox's shell.
func shell() string {
	for _, path := range []string{"/bin/bash", "/bin/sh"} {
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			return path
		}
	}
	return ""
}

// shellArgs makes the argument vector for a command. A command that is too long for one argument is passed in
// pieces and put together by the shell itself, which needs no file and leaves standard input alone.
func shellArgs(shell, cmd string, login bool) []string {
	argv0 := shell
	if login {
		argv0 = "-" + filepath.Base(shell)
	}
	if cmd == "" && login {
		return []string{argv0}
	}
	if len(cmd) <= maxArgument {
		return []string{argv0, "-c", cmd}
	}
	var pieces []string
	for rest := cmd; rest != ""; {
		n := len(rest)
		if n > maxArgument {
			n = maxArgument
		}
		pieces = append(pieces, rest[:n])
		rest = rest[n:]
	}
	var together strings.Builder
	together.WriteString(`eval "set --; `)
	for i := range pieces {
		fmt.Fprintf(&together, "${%d}", i+1)
	}
	together.WriteString(`"`)
	return append([]string{argv0, "-c", together.String(), shell}, pieces...)
}

func (r *startRequest) check() error {
	switch r.Kind {
	case "":
		r.Kind = "command"
	case "command", "background", "stdio", "pty":
	default:
		return fail("bad_request", "kind must be command, background, stdio or pty")
	}
	if strings.IndexByte(r.Cmd, 0) >= 0 || strings.IndexByte(r.Cwd, 0) >= 0 || strings.IndexByte(r.User, 0) >= 0 {
		return fail("bad_request", "cmd, cwd and user must not contain a NUL byte")
	}
	if r.Cmd == "" && r.Kind != "pty" {
		return fail("bad_request", "cmd is empty")
	}
	for i, argument := range r.Argv {
		if strings.IndexByte(argument, 0) >= 0 || i == 0 && argument == "" {
			return fail("bad_request", "argv must name a program and contain no NUL byte")
		}
	}
	if len(r.Tag) > maxTag {
		return fail("bad_request", "tag is longer than %d bytes", maxTag)
	}
	if err := checkEnv(r.Env); err != nil {
		return err
	}
	if r.Kind == "pty" {
		if r.Cols == 0 {
			r.Cols = 80
		}
		if r.Rows == 0 {
			r.Rows = 24
		}
		return checkSize(r.Cols, r.Rows)
	}
	return nil
}

func checkSize(cols, rows int) error {
	if cols < 1 || cols > 65535 || rows < 1 || rows > 65535 {
		return fail("bad_request", "cols and rows must be between 1 and 65535")
	}
	return nil
}

// resolveCwd finds the working directory of a start.
func resolveCwd(cwd string, acc account) (string, error) {
	if cwd == "" {
		if fi, err := os.Stat(acc.Home); err == nil && fi.IsDir() {
			return acc.Home, nil
		}
		return "/", nil
	}
	if !filepath.IsAbs(cwd) {
		cwd = filepath.Join(acc.Home, cwd)
	}
	fi, err := os.Stat(cwd)
	switch {
	case err != nil:
		return "", fail("cwd_not_found", "the working directory %q cannot be entered: %v", cwd, rootCause(err))
	case !fi.IsDir():
		return "", fail("cwd_not_found", "the working directory %q is not a directory", cwd)
	}
	return cwd, nil
}

func rootCause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// start runs a command for an identity.
func (ps *processes) start(id *identity, req startRequest) (*process, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if req.User == "" {
		req.User = id.defaultUser
	}
	acc, err := ps.accounts.find(req.User)
	if err != nil {
		return nil, err
	}
	cwd, err := resolveCwd(req.Cwd, acc)
	if err != nil {
		return nil, err
	}
	sh := shell()
	if sh == "" {
		return nil, fail("spawn_failed", "the sandbox has neither /bin/bash nor /bin/sh")
	}
	if err := ps.reserve(); err != nil {
		return nil, err
	}
	p, err := ps.launch(id, req, acc, cwd, sh)
	if err != nil {
		ps.mu.Lock()
		ps.live--
		ps.mu.Unlock()
		return nil, err
	}
	return p, nil
}

func (ps *processes) reserve() error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.live >= maxLiveProcesses {
		return fail("too_many", "%d processes are already running", maxLiveProcesses)
	}
	ps.live++
	return nil
}

func (ps *processes) launch(id *identity, req startRequest, acc account, cwd, sh string) (_ *process, err error) {
	p := &process{req: req, user: acc.Name, cwd: cwd, out: newOutput(ps.budget)}
	var theirs, ours []*os.File // ends of the child, closed after the fork; ends of the agent, closed if it fails
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			for _, f := range ours {
				f.Close()
			}
		}
	}()

	term := ""
	attr := &syscall.ProcAttr{Dir: cwd, Sys: &syscall.SysProcAttr{Setsid: true, Credential: acc.credential()}}
	if req.Kind == "pty" {
		term = "xterm-256color"
		master, slave, err := openPTY(acc.UID, windowSize{Rows: uint16(req.Rows), Cols: uint16(req.Cols)})
		if err != nil {
			return nil, fail("spawn_failed", "no terminal: %v", err)
		}
		theirs, ours = append(theirs, slave), append(ours, master)
		attr.Files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
		attr.Sys.Setctty, attr.Sys.Ctty = true, 0
		p.terminal = master
		p.in = &stdinPipe{file: master}
		stream, err := newOutStream(frameTerminal, master)
		if err != nil {
			return nil, err
		}
		p.streams = []*outStream{stream}
	} else {
		in, err := childInput(req.Stdin, p)
		if err != nil {
			return nil, err
		}
		theirs = append(theirs, in)
		if p.in != nil {
			ours = append(ours, p.in.file)
		}
		attr.Files = []uintptr{in.Fd()}
		for _, kind := range []byte{frameStdout, frameStderr} {
			read, write, err := pipeFor(true)
			if err != nil {
				return nil, err
			}
			theirs, ours = append(theirs, write), append(ours, read)
			attr.Files = append(attr.Files, write.Fd())
			stream, err := newOutStream(kind, read)
			if err != nil {
				return nil, err
			}
			p.streams = append(p.streams, stream)
		}
	}
	p.open = len(p.streams)
	attr.Env = buildEnv(acc, sh, term, id.templateEnv, id.env, req.Env)
	file, argv := sh, shellArgs(sh, req.Cmd, req.Login || req.Kind == "pty" && req.Cmd == "")
	if len(req.Argv) > 0 {
		argv = req.Argv
		if file = findProgram(argv[0], valueOf(attr.Env, "PATH"), cwd); file == "" {
			return nil, fail("spawn_failed", "there is no program %q", argv[0])
		}
	}

	p.serial = ps.serial.Add(1)
	p.id = fmt.Sprintf("p%d", p.serial)
	p.startedAt = time.Now().UnixMilli()
	spawn := func() (int, error) {
		pid, err := ps.launcher.forkExec(apiReserve, file, argv, attr)
		if err == nil {
			// Before the reaper may tell of its end.
			p.pid = pid
			ps.mu.Lock()
			ps.table[p.id] = p
			ps.mu.Unlock()
		}
		return pid, err
	}
	_, err = ps.reaper.start(spawn, func(status syscall.WaitStatus) { ps.leaderEnded(p, status) })
	if err != nil {
		return nil, spawnError(err, acc, cwd)
	}
	for _, s := range p.streams {
		s := s
		go guard("output of a process", func() { s.pump(p.out, func() { ps.streamEnded(p) }) })
	}
	return p, nil
}

// childInput makes what the child gets as standard input.
func childInput(pipe bool, p *process) (*os.File, error) {
	if !pipe {
		return os.Open(os.DevNull)
	}
	read, write, err := pipeFor(false)
	if err != nil {
		return nil, err
	}
	p.in = &stdinPipe{file: write, closeFile: true}
	return read, nil
}

// pipeFor makes a pipe of which only the agent's end, the reading one or the writing one, does not block: the
// child must get ordinary descriptors.
func pipeFor(agentReads bool) (read, write *os.File, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, err
	}
	ours := fds[1]
	if agentReads {
		ours = fds[0]
	}
	if err := syscall.SetNonblock(ours, true); err != nil {
		syscall.Close(fds[0])
		syscall.Close(fds[1])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

func spawnError(err error, acc account, cwd string) error {
	switch rootCause(err) {
	case syscall.EAGAIN:
		return fail("spawn_failed", "no process could be started: the limit of processes in the sandbox is reached")
	case syscall.E2BIG:
		return fail("bad_request", "the command and its environment are too long for the kernel")
	case syscall.EACCES:
		return fail("forbidden", "user %s may not enter the working directory %q, or not execute the program", acc.Name, cwd)
	}
	return fail("spawn_failed", "no process could be started: %v", rootCause(err))
}

// leaderEnded is called by the reaper.
func (ps *processes) leaderEnded(p *process, status syscall.WaitStatus) {
	if p.terminal != nil {
		// Nothing can be typed to the rest of the group any more.
		ps.reaper.signalLeftovers(p.pid, syscall.SIGKILL)
	}
	p.mu.Lock()
	p.status = &status
	complete := p.open == 0
	p.mu.Unlock()
	if complete {
		ps.finish(p)
		return
	}
	afterRunning(exitGrace, func() {
		for _, s := range p.streams {
			if s.graceOver() {
				ps.streamEnded(p)
			}
		}
	})
}

func (ps *processes) streamEnded(p *process) {
	p.mu.Lock()
	p.open--
	complete := p.open == 0 && p.status != nil
	p.mu.Unlock()
	if complete {
		ps.finish(p)
	}
}

// finish runs once per process: the leader has ended and so has its output.
func (ps *processes) finish(p *process) {
	p.mu.Lock()
	if p.exit != nil {
		p.mu.Unlock()
		return
	}
	exit := exitOf(*p.status)
	if p.outOfMem && exit.ExitCode == 128+int(syscall.SIGKILL) {
		exit.Reason = "out_of_memory"
	}
	p.exit = exit
	p.mu.Unlock()

	// First what somebody waits for.
	p.out.finish(exit)
	if p.in != nil {
		p.in.end()
	}
	if p.terminal != nil {
		p.terminal.Close()
	}
	tag := p.req.Tag
	ps.events.add(event{Type: "process_exit", ID: p.id, PID: p.pid, Kind: p.req.Kind, Tag: &tag, Exit: exit})

	ps.mu.Lock()
	ps.live--
	var dropped []*process
	if ps.table[p.id] == p { // else it was removed while it ran
		ps.ended = append(ps.ended, p)
		if len(ps.ended) > maxEndedProcesses {
			dropped = append(dropped, ps.ended[0])
			ps.ended = append([]*process(nil), ps.ended[1:]...)
			delete(ps.table, dropped[0].id)
		}
	}
	ps.mu.Unlock()
	for _, old := range dropped {
		old.out.forget()
	}
}

func (ps *processes) get(id string) (*process, error) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p, ok := ps.table[id]; ok {
		return p, nil
	}
	return nil, fail("not_found", "there is no process %q", id)
}

func (ps *processes) all() []*process {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	all := make([]*process, 0, len(ps.table))
	for _, p := range ps.table {
		all = append(all, p)
	}
	return all
}

func (ps *processes) list() []processView {
	all := ps.all()
	sort.Slice(all, func(i, j int) bool { return all[i].serial < all[j].serial })
	views := make([]processView, len(all))
	for i, p := range all {
		views[i] = p.view()
	}
	return views
}

// remove ends a process if it runs and forgets it.
func (ps *processes) remove(p *process) (killed bool) {
	killed, _ = ps.reaper.signal(p.pid, syscall.SIGKILL, true)
	ps.mu.Lock()
	delete(ps.table, p.id)
	for i, e := range ps.ended {
		if e == p {
			ps.ended = append(append([]*process(nil), ps.ended[:i]...), ps.ended[i+1:]...)
			break
		}
	}
	ps.mu.Unlock()
	p.out.forget()
	return killed
}

// signal reaches the leader, or its group. A group is reached also after its leader has ended: that is how
// what a command left behind can be stopped.
func (ps *processes) signal(p *process, sig syscall.Signal, group bool) (bool, error) {
	delivered, err := ps.reaper.signal(p.pid, sig, group)
	if err != nil {
		return false, err
	}
	if !delivered && group {
		delivered = ps.reaper.signalLeftovers(p.pid, sig)
	}
	return delivered, nil
}

func (ps *processes) writeStdin(p *process, data []byte) error {
	if p.in == nil {
		return fail("stdin_closed", "the process was started without standard input")
	}
	return p.in.write(data)
}

func (ps *processes) closeStdin(p *process) error {
	switch {
	case p.in == nil:
		return fail("stdin_closed", "the process was started without standard input")
	case p.terminal != nil:
		return p.in.write([]byte{4}) // EOT: the line discipline makes it end of file
	}
	return p.in.closeAfterQueue()
}

func (ps *processes) resize(p *process, cols, rows int) error {
	if p.terminal == nil {
		return fail("bad_request", "the process has no terminal")
	}
	if err := checkSize(cols, rows); err != nil {
		return err
	}
	if err := setWindowSize(p.terminal, windowSize{Rows: uint16(rows), Cols: uint16(cols)}); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return nil // it has ended: nothing to resize is no fault of the caller
		}
		return err
	}
	signalSession("/proc", p.pid, syscall.SIGWINCH)
	return nil
}

// killAll ends every process of the sandbox except the agent.
func (ps *processes) killAll() error {
	// A fork that is under way escapes one sweep, never many: the newborn is met by the next.
	for i := 0; i < 100; i++ {
		err := signalAll(syscall.SIGKILL)
		if err == syscall.ESRCH || err == nil && !ps.reaper.busy.Load() {
			return nil
		}
		if err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// signalAll reaches every process of the sandbox but the agent. Only process 1 may do it: for any other
// process the same call means the whole machine.
func signalAll(sig syscall.Signal) error {
	if os.Getpid() != 1 {
		return fail("forbidden", "the agent is not process 1")
	}
	return syscall.Kill(-1, sig)
}

// markOutOfMemory notes that the memory watch ended pid, so that the exit of the process it belonged to says so.
func (ps *processes) markOutOfMemory(pid, pgrp, session int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.table {
		if p.pid == pid || p.pid == pgrp || p.pid == session {
			p.mu.Lock()
			p.outOfMem = true
			p.mu.Unlock()
		}
	}
}

// commandLine makes /proc/<pid>/cmdline readable.
func commandLine(raw []byte) string {
	return strings.ToValidUTF8(string(bytes.TrimRight(bytes.ReplaceAll(raw, []byte{0}, []byte{' '}), " ")), "\uFFFD")
}
