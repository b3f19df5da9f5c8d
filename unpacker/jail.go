package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"
)

// Numbers that Go's frozen syscall package lacks.
const (
	prSetPdeathsig     = 1
	prCapbsetDrop      = 24
	prSetNoNewPrivs    = 38
	prGetNoNewPrivs    = 39
	atEmptyPath        = 0x1000
	sysCloseRange      = 436
	closeRangeCloexec  = 4
	capabilityVersion3 = 0x20080522
	highestCapability  = 63
)

// kept is what owners, modes and file capabilities need. Without CAP_MKNOD no device can be made, without CAP_SYS_ADMIN
// nothing can be mounted, without CAP_SYS_CHROOT the root is final.
const kept uint64 = 1<<0 /* CHOWN */ | 1<<1 /* DAC_OVERRIDE */ | 1<<3 /* FOWNER */ | 1<<4 /* FSETID */ | 1<<31 /* SETFCAP */

// mostMemory holds a million names, and ends a tar whose headers want more.
const mostMemory = 768 << 20

// start runs the second stage in namespaces of its own and returns the exit code.
func start(directory string, args []string) int {
	// Should the server die, the pipes' end would be noticed too, but later.
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetPdeathsig, uintptr(syscall.SIGKILL), 0)
	cmd := exec.Cmd{
		Path:   "/proc/self/exe",
		Args:   append([]string{enteringName, directory}, args...),
		Env:    []string{},
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
			Pdeathsig:  syscall.SIGKILL,
			Setsid:     true,
		},
	}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal())
		}
		return exit.ExitCode()
	}
	if err != nil {
		exitWith(fmt.Errorf("namespaces for the unpacker could not be made: %w", err))
	}
	return 0
}

// enter makes the directory the root of this process, gives every power away, and becomes the third stage: an exec, so
// that no thread of this one is left over.
func enter(directory string, args []string) error {
	self, err := syscall.Open("/proc/self/exe", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the unpacker: %w", err)
	}
	if err := makeRoot(directory); err != nil {
		return err
	}
	for resource, limit := range map[int]uint64{syscall.RLIMIT_DATA: mostMemory, syscall.RLIMIT_NOFILE: 64, syscall.RLIMIT_CORE: 0} {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("set limits: %w", err)
		}
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := closeOnExec(); err != nil {
		return err
	}
	return execute(self, append([]string{confinedName}, args...))
}

func makeRoot(directory string) error {
	const flags = syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
	steps := []struct {
		what string
		do   func() error
	}{
		{"make mounts private", func() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") }},
		{"bind the directory", func() error { return syscall.Mount(directory, directory, "", syscall.MS_BIND, "") }},
		{"restrict the directory", func() error { return syscall.Mount("", directory, "", flags, "") }},
		{"enter the directory", func() error { return syscall.Chdir(directory) }},
		{"make the directory the root", func() error { return syscall.PivotRoot(".", ".") }},
		{"leave the old root", func() error { return syscall.Unmount(".", syscall.MNT_DETACH) }},
		{"enter the root", func() error { return syscall.Chdir("/") }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

type capabilityHeader struct {
	version uint32
	pid     int32
}

type capabilityData struct{ effective, permitted, inheritable uint32 }

func readCapabilities() ([2]capabilityData, error) {
	header := capabilityHeader{version: capabilityVersion3}
	var data [2]capabilityData
	_, _, errno := syscall.RawSyscall(syscall.SYS_CAPGET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	return data, asError("read capabilities", errno)
}

// dropCapabilities arranges that the next exec leaves `kept` and that nothing brings the others back.
func dropCapabilities() error {
	data, err := readCapabilities()
	if err != nil {
		return err
	}
	for capability := 0; capability <= highestCapability; capability++ {
		if kept>>capability&1 == 1 {
			continue
		}
		// EINVAL: this kernel has no such capability.
		if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prCapbsetDrop, uintptr(capability), 0); errno != 0 && errno != syscall.EINVAL {
			return asError("drop capabilities", errno)
		}
	}
	// An exec by root keeps what is inheritable, whatever the bounding set says.
	data[0].inheritable, data[1].inheritable = 0, 0
	header := capabilityHeader{version: capabilityVersion3}
	_, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return asError("drop inheritable capabilities", errno)
	}
	_, _, errno = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0)
	return asError("forbid new privileges", errno)
}

// closeOnExec keeps whatever this process was given besides the three standard descriptors from the next stage.
func closeOnExec() error {
	const last = 1<<32 - 1
	if _, _, errno := syscall.RawSyscall(sysCloseRange, 3, last, closeRangeCloexec); errno == 0 {
		return nil
	}
	for fd := 3; fd < 65536; fd++ { // kernels before 5.11
		syscall.CloseOnExec(fd)
	}
	return nil
}

func execute(program int, args []string) error {
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	// One thread collects garbage as well as many, and the memory is bounded.
	envv, err := syscall.SlicePtrFromStrings([]string{"GOGC=50", "GOMAXPROCS=2"})
	if err != nil {
		return err
	}
	empty, err := syscall.BytePtrFromString("")
	if err != nil {
		return err
	}
	_, _, errno := syscall.RawSyscall6(sysExecveat, uintptr(program), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), atEmptyPath, 0)
	runtime.KeepAlive(argv)
	runtime.KeepAlive(envv)
	return asError("start the confined stage", errno)
}

// assertConfined refuses to read a layer with more power than intended.
func assertConfined() error {
	data, err := readCapabilities()
	if err != nil {
		return err
	}
	permitted := uint64(data[1].permitted)<<32 | uint64(data[0].permitted)
	effective := uint64(data[1].effective)<<32 | uint64(data[0].effective)
	if permitted != kept || effective != kept || data[0].inheritable != 0 || data[1].inheritable != 0 {
		return fmt.Errorf("the unpacker has the capabilities %x instead of %x", permitted, kept)
	}
	if on, _, _ := syscall.RawSyscall6(syscall.SYS_PRCTL, prGetNoNewPrivs, 0, 0, 0, 0, 0); on != 1 {
		return errors.New("the unpacker could gain privileges")
	}
	if os.Getpid() != 1 {
		return errors.New("the unpacker has no process namespace of its own")
	}
	return nil
}

func asError(what string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", what, errno)
}
