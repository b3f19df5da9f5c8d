package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const sudoUsage = `usage: sudo -h | -V | -k | -v | -l
usage: sudo [-bEHnS] [-g group] [-u user] [VAR=value] [-i | -s] [command [arg ...]]
`

// sudoOptions is a command line of sudo.
type sudoOptions struct {
	request sudoRequest
	chdir   string
	action  string // "run", "help", "version", "check" or "list"
}

// parseSudoArgs reads the flags of the real sudo. Those about passwords are accepted and mean nothing here.
func parseSudoArgs(args []string) (*sudoOptions, error) {
	o := &sudoOptions{action: "run"}
	long := map[string]byte{"askpass": 'A', "background": 'b', "bell": 'B', "close-from": 'C', "chdir": 'D', "preserve-env": 'E',
		"edit": 'e', "group": 'g', "set-home": 'H', "help": 'h', "login": 'i', "remove-timestamp": 'K', "reset-timestamp": 'k',
		"list": 'l', "non-interactive": 'n', "preserve-groups": 'P', "prompt": 'p', "chroot": 'R', "stdin": 'S', "shell": 's',
		"command-timeout": 'T', "other-user": 'U', "user": 'u', "version": 'V', "validate": 'v', "no-update": 'N'}
	const withValue = "CDghpRTUurt"
	kill := false
	set := func(flag byte, value string) error {
		switch flag {
		case 'b':
			o.request.Background = true
		case 'D':
			o.chdir = value
		case 'E':
			o.request.PreserveEnv = true
		case 'g':
			o.request.Group = value
		case 'h':
			o.action = "help"
		case 'i':
			o.request.Login = true
		case 'k', 'K':
			kill = true
		case 'l':
			o.action = "list"
		case 's':
			o.request.Shell = true
		case 'u':
			o.request.User = value
		case 'V':
			o.action = "version"
		case 'v':
			o.action = "check"
		case 'A', 'B', 'C', 'H', 'N', 'n', 'P', 'p', 'r', 'S', 'T', 't', 'U':
		default:
			return fmt.Errorf("the option -%c is not supported in a sandbox", flag)
		}
		return nil
	}
	i := 0
	for ; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			i++
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			break
		}
		if name, ok := cutPrefix(arg, "--"); ok {
			name, value, hasValue := strings.Cut(name, "=")
			flag, known := long[name]
			if !known {
				return nil, fmt.Errorf("unrecognized option '%s'", arg)
			}
			if strings.IndexByte(withValue, flag) >= 0 && flag != 'h' && !hasValue {
				if i++; i == len(args) {
					return nil, fmt.Errorf("option '%s' requires an argument", arg)
				}
				value = args[i]
			}
			if flag == 'E' && hasValue {
				continue // a list of variables: all are kept anyway, and HOME is not meant
			}
			if err := set(flag, value); err != nil {
				return nil, err
			}
			continue
		}
		for j := 1; j < len(arg); j++ {
			flag, value := arg[j], ""
			if strings.IndexByte(withValue, flag) >= 0 && flag != 'h' {
				if value = arg[j+1:]; value == "" {
					if i++; i == len(args) {
						return nil, fmt.Errorf("option requires an argument -- '%c'", flag)
					}
					value = args[i]
				}
				j = len(arg)
			}
			if err := set(flag, value); err != nil {
				return nil, err
			}
		}
	}
	for ; i < len(args); i++ {
		if eq := strings.IndexByte(args[i], '='); eq < 1 || strings.ContainsAny(args[i][:eq], "/ ") {
			break
		}
		o.request.Assignments = append(o.request.Assignments, args[i])
	}
	o.request.Argv = args[i:]
	if o.action == "run" && len(o.request.Argv) == 0 && !o.request.Login && !o.request.Shell {
		if kill {
			o.action = "forget"
		} else {
			o.action = "usage"
		}
	}
	return o, nil
}

// sudoMain is the client: it runs as the caller and returns the exit code.
func sudoMain(args []string) int {
	fillStandardDescriptors()
	complain := func(format string, args ...any) int {
		fmt.Fprintf(os.Stderr, "sudo: "+format+"\n", args...)
		return 1
	}
	o, err := parseSudoArgs(args)
	if err != nil {
		complain("%v", err)
		fmt.Fprint(os.Stderr, sudoUsage)
		return 1
	}
	switch o.action {
	case "help":
		fmt.Print("sudo - execute a command as another user\n\n" + sudoUsage)
		return 0
	case "usage":
		fmt.Fprint(os.Stderr, sudoUsage)
		return 1
	case "version":
		fmt.Println("Sudo version 1.9.0 (paddock-agent " + version + ")")
		return 0
	case "forget":
		return 0
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: sudoSocket, Net: "unix"})
	switch {
	case errors.Is(err, os.ErrPermission):
		return complain("this user may not run sudo in this sandbox")
	case err != nil:
		return complain("sudo is switched off in this sandbox")
	}
	defer conn.Close()
	switch o.action {
	case "check":
		return 0
	case "list":
		host, _ := os.Hostname()
		name := os.Getenv("USER")
		fmt.Printf("User %s may run the following commands on %s:\n    (ALL : ALL) NOPASSWD: ALL\n", name, host)
		return 0
	}
	code, err := runSudo(conn, o)
	if err != nil {
		return complain("%v", err)
	}
	return code
}

func runSudo(conn *net.UnixConn, o *sudoOptions) (int, error) {
	req := &o.request
	req.Env = os.Environ()
	req.UID, req.GID = uint32(os.Getuid()), uint32(os.Getgid())
	if o.chdir != "" {
		if err := os.Chdir(o.chdir); err != nil {
			return 1, err
		}
	}
	req.Cwd, _ = syscallGetwd()
	term := callerTerminal()
	req.Terminal = term != nil && !req.Background
	if req.Terminal {
		size := term.size()
		req.Rows, req.Cols = size.Rows, size.Cols
	}
	// Caught before the command starts, so that none is lost.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGCONT)
	if err := sendMessage(conn, req, 0, 1, 2); err != nil {
		return 1, err
	}
	var started sudoStarted
	received, err := receiveMessage(conn, &started, 1)
	if err != nil {
		return 1, errors.New("the sandbox's agent does not answer")
	}
	if started.Error != "" {
		return 1, errors.New(started.Error)
	}
	if req.Background {
		return 0, nil
	}
	var relay *terminalRelay
	if req.Terminal && len(received) == 1 {
		relay = newTerminalRelay(term, received[0])
		relay.start()
	}
	ended := make(chan sudoEnded, 1)
	go func() {
		var end sudoEnded
		if _, err := receiveMessage(conn, &end, 0); err != nil {
			end = sudoEnded{ExitCode: 1}
		}
		ended <- end
	}()
	for {
		select {
		case s := <-signals:
			sig := s.(syscall.Signal)
			switch {
			case sig == syscall.SIGWINCH && relay != nil:
				relay.resize()
				conn.Write([]byte{byte(sig)}) // as another user this process cannot tell the command itself
			case sig == syscall.SIGCONT:
				if relay != nil {
					relay.enter() // perhaps in the foreground now
				}
			default:
				conn.Write([]byte{byte(sig)})
			}
		case end := <-ended:
			if relay != nil {
				relay.finish()
			}
			dieOf(syscall.Signal(end.Signal))
			return end.ExitCode, nil
		}
	}
}

// dieOf ends the client by the signal that ended the command, so that a shell sees what it would have seen
// without sudo. Only those that leave no core file.
func dieOf(sig syscall.Signal) {
	switch sig {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL:
		signal.Reset(sig)
		syscall.Kill(os.Getpid(), sig)
		time.Sleep(100 * time.Millisecond)
	}
}

// syscallGetwd asks the kernel; os.Getwd would believe $PWD.
func syscallGetwd() (string, error) {
	var buf [syscall.PathMax]byte
	n, err := syscall.Getcwd(buf[:])
	if err != nil || n < 2 || buf[0] != '/' {
		return "/", err
	}
	return string(buf[:n-1]), nil
}

// fillStandardDescriptors opens /dev/null in the place of 0, 1 or 2 where one is closed. It comes first of all: the next
// file the client opens would get the number, and the command would get that file.
func fillStandardDescriptors() {
	for fd := 0; fd <= 2; fd++ {
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0); errno == syscall.EBADF {
			syscall.Open(os.DevNull, syscall.O_RDWR, 0) // gives the lowest free number, which is fd
		}
	}
}

// terminal is the caller's, reached through descriptor 0.
type terminal struct{ saved syscall.Termios }

// callerTerminal returns the terminal if both standard input and output are one: in a pipeline the command gets
// the caller's descriptors as they are.
func callerTerminal() *terminal {
	t := &terminal{}
	var out syscall.Termios
	if ioctl(0, syscall.TCGETS, unsafe.Pointer(&t.saved)) != nil || ioctl(1, syscall.TCGETS, unsafe.Pointer(&out)) != nil {
		return nil
	}
	return t
}

func (t *terminal) size() windowSize {
	var size windowSize
	if ioctl(0, syscall.TIOCGWINSZ, unsafe.Pointer(&size)) != nil || size.Cols == 0 || size.Rows == 0 {
		size = windowSize{Rows: 24, Cols: 80}
	}
	return size
}

// inForeground tells whether the client may read from the terminal and change its modes.
func (t *terminal) inForeground() bool {
	var group int32
	return ioctl(0, syscall.TIOCGPGRP, unsafe.Pointer(&group)) == nil && int(group) == syscall.Getpgrp()
}

func (t *terminal) makeRaw() {
	raw := t.saved
	raw.Iflag &^= syscall.IGNBRK | syscall.BRKINT | syscall.PARMRK | syscall.ISTRIP | syscall.INLCR | syscall.IGNCR | syscall.ICRNL | syscall.IXON
	raw.Oflag &^= syscall.OPOST
	raw.Lflag &^= syscall.ECHO | syscall.ECHONL | syscall.ICANON | syscall.ISIG | syscall.IEXTEN
	raw.Cflag = raw.Cflag&^(syscall.CSIZE|syscall.PARENB) | syscall.CS8
	raw.Cc[syscall.VMIN], raw.Cc[syscall.VTIME] = 1, 0
	ioctl(0, syscall.TCSETS, unsafe.Pointer(&raw))
}

func (t *terminal) restore() {
	// TCSETSW (0x5403): what has been written is shown first.
	ioctl(0, 0x5403, unsafe.Pointer(&t.saved))
}

// terminalRelay connects the caller's terminal with the command's own.
type terminalRelay struct {
	caller  *terminal
	master  *os.File
	raw     bool
	reading bool
	drained chan struct{}
}

func newTerminalRelay(caller *terminal, fd int) *terminalRelay {
	syscall.SetNonblock(fd, true)
	return &terminalRelay{caller: caller, master: os.NewFile(uintptr(fd), "terminal"), drained: make(chan struct{})}
}

func (r *terminalRelay) start() {
	// The command's terminal gets the modes the caller's had, for example no echo.
	if conn, err := r.master.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) { ioctl(fd, syscall.TCSETS, unsafe.Pointer(&r.caller.saved)) })
	}
	r.enter()
	go func() {
		defer close(r.drained)
		io.Copy(blockingOutput{}, struct{ io.Reader }{r.master})
	}()
}

// enter goes raw and begins to read the keyboard, if the client is in the foreground.
func (r *terminalRelay) enter() {
	if !r.caller.inForeground() {
		return
	}
	r.raw = true
	r.caller.makeRaw()
	r.resize()
	if r.reading {
		return
	}
	r.reading = true
	go func() {
		var buf [4096]byte
		for {
			// Not os.Stdin: the descriptor is shared with the caller and must stay blocking.
			n, err := syscall.Read(0, buf[:])
			if err == syscall.EINTR {
				continue
			}
			if n <= 0 {
				return
			}
			if _, err := r.master.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
}

func (r *terminalRelay) resize() { setWindowSize(r.master, r.caller.size()) }

// finish shows what is left and gives the terminal back.
func (r *terminalRelay) finish() {
	over := make(chan struct{})
	defer afterRunning(200*time.Millisecond, func() { close(over) })()
	select {
	case <-r.drained:
	case <-over: // something in the background keeps it open
	}
	if r.raw {
		r.caller.restore()
	}
}

// blockingOutput writes to descriptor 1 without giving it to the poller, for the same reason.
type blockingOutput struct{}

func (blockingOutput) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := syscall.Write(1, p[written:])
		if err == syscall.EINTR {
			continue
		}
		if err == syscall.EAGAIN {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}
