package main

import (
	"io"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// buffers are lent for the moment of a read: a process that is silent, or a tunnel that is idle, costs none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// waitReadable blocks until one read of fd gives something and hands it to use. The buffer is taken only when there
// is something to read and is valid until use returns. The error is io.EOF at the end.
func waitReadable(conn syscall.RawConn, read func(fd int, buf []byte) (int, error), use func([]byte)) error {
	var n int
	var err error
	var buf *[]byte
	waitErr := conn.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[]byte)
		for {
			n, err = read(int(fd), *buf)
			if err != syscall.EINTR {
				break
			}
		}
		if err == syscall.EAGAIN {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer buffers.Put(buf)
	}
	if waitErr != nil {
		return waitErr
	}
	if err != nil {
		return err
	}
	if n <= 0 {
		return io.EOF
	}
	use((*buf)[:n])
	return nil
}

// outStream is the agent's end of one output of a process.
type outStream struct {
	kind byte
	file *os.File
	conn syscall.RawConn

	mu     sync.Mutex
	held   int  // bytes read that have not been appended yet
	ended  bool // what comes is thrown away
	leader bool // the leader has ended and the grace is over
	left   int  // then: bytes that were waiting at that moment and still count
}

func newOutStream(kind byte, file *os.File) (*outStream, error) {
	conn, err := file.SyscallConn()
	return &outStream{kind: kind, file: file, conn: conn}, err
}

// pump moves the stream into the output until its end, calls ended once when nothing more counts, and then
// reads on and throws away: a background child that still writes must not die of SIGPIPE.
func (s *outStream) pump(out *output, ended func()) {
	read := func(fd int, buf []byte) (int, error) {
		// The lock makes "there is nothing in the pipe" and "the reader holds nothing" one observation for graceOver.
		s.mu.Lock()
		defer s.mu.Unlock()
		n, err := syscall.Read(fd, buf)
		if n > 0 {
			s.held = n
		}
		return n, err
	}
	for {
		over := false
		err := waitReadable(s.conn, read, func(data []byte) {
			if s.isEnded() {
				return
			}
			out.append(s.kind, data)
			over = s.appended(len(data))
		})
		if over {
			ended()
		}
		if err != nil {
			break
		}
	}
	s.mu.Lock()
	first := !s.ended
	s.ended = true
	s.mu.Unlock()
	if first {
		ended()
	}
	s.file.Close()
}

func (s *outStream) isEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

func (s *outStream) appended(n int) (over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = 0
	if s.leader {
		s.left -= n
		if s.left <= 0 && !s.ended {
			s.ended = true
			return true
		}
	}
	return false
}

// graceOver is called when the leader has been gone for a while: what lies in the pipe now still counts, also if
// a slow follower holds the reader up; what is written later does not. It tells whether the stream ends at once.
func (s *outStream) graceOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.leader {
		return false
	}
	s.leader = true
	var waiting int32
	s.conn.Control(func(fd uintptr) {
		const fionread = 0x541b
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, fionread, uintptr(unsafe.Pointer(&waiting))); errno != 0 {
			waiting = 0
		}
	})
	s.left = int(waiting) + s.held
	s.ended = s.left == 0
	return s.ended
}
