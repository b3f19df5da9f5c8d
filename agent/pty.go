package main

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

type windowSize struct{ Rows, Cols, X, Y uint16 }

func ioctl(fd uintptr, request uint, arg unsafe.Pointer) error {
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// openPTY makes a pseudo terminal that belongs to uid. Both ends are closed on exec; the master does not block.
func openPTY(uid uint32, size windowSize) (master, slave *os.File, err error) {
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	// The descriptor is non-blocking, so the file uses the poller.
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	var number, unlock int32
	if err = ioctl(uintptr(fd), syscall.TIOCGPTN, unsafe.Pointer(&number)); err != nil {
		return nil, nil, err
	}
	if err = ioctl(uintptr(fd), syscall.TIOCSPTLCK, unsafe.Pointer(&unlock)); err != nil {
		return nil, nil, err
	}
	if err = ioctl(uintptr(fd), syscall.TIOCSWINSZ, unsafe.Pointer(&size)); err != nil {
		return nil, nil, err
	}
	name := "/dev/pts/" + strconv.Itoa(int(number))
	sfd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	slave = os.NewFile(uintptr(sfd), name)
	// Programs such as tmux and ssh open the terminal by its name. Not fatal where the kernel refuses it.
	_ = os.Chown(name, int(uid), -1)
	_ = os.Chmod(name, 0o620)
	return master, slave, nil
}

// setWindowSize resizes the terminal. Who is in it is told by signalSession.
func setWindowSize(file *os.File, size windowSize) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = ioctl(fd, syscall.TIOCSWINSZ, unsafe.Pointer(&size)) })
	if err != nil {
		return err
	}
	return failed
}
