package main

import (
	"os"
	"sync"
	"syscall"
)

const maxStdinWaiting = 1 << 20

// stdinPipe is the writing end of a process's standard input, or its terminal. Writing never blocks a request: what
// the process does not take at once waits in a bounded queue.
type stdinPipe struct {
	file *os.File
	// closeFile is false for a terminal, whose file the reader owns.
	closeFile bool

	mu      sync.Mutex
	queue   []byte
	pumping bool
	closing bool // close after the queue
	closed  bool
}

// write accepts all of data or nothing.
func (s *stdinPipe) write(data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.closing {
		return fail("stdin_closed", "the standard input of the process is closed")
	}
	if len(s.queue) > 0 && len(s.queue)+len(data) > maxStdinWaiting {
		return fail("stdin_full", "the process does not read its standard input: %d bytes are waiting", len(s.queue))
	}
	if !s.pumping && len(data) > 0 {
		n, err := s.writeNow(data)
		if err != nil {
			s.shut()
			return fail("stdin_closed", "the process has closed its standard input")
		}
		data = data[n:]
	}
	if len(data) == 0 {
		return nil
	}
	s.queue = append(s.queue, data...)
	s.startPump()
	return nil
}

// writeNow writes what the pipe takes without waiting.
func (s *stdinPipe) writeNow(data []byte) (int, error) {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	written := 0
	var failed error
	err = conn.Write(func(fd uintptr) bool {
		for written < len(data) {
			n, err := syscall.Write(int(fd), data[written:])
			if err == syscall.EINTR {
				continue
			}
			if err != nil {
				if err != syscall.EAGAIN {
					failed = err
				}
				break
			}
			written += n
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	return written, failed
}

func (s *stdinPipe) startPump() {
	if s.pumping {
		return
	}
	s.pumping = true
	go guard("standard input", s.pump)
}

func (s *stdinPipe) pump() {
	for {
		s.mu.Lock()
		if s.closed || len(s.queue) == 0 {
			s.pumping = false
			if s.closing && !s.closed {
				s.shut()
			}
			s.mu.Unlock()
			return
		}
		chunk := s.queue
		if len(chunk) > 64<<10 {
			chunk = chunk[:64<<10]
		}
		s.mu.Unlock()
		// Only the pump removes from the queue, so chunk stays valid while others append.
		n, err := s.file.Write(chunk)
		s.mu.Lock()
		if n >= len(s.queue) {
			s.queue = nil
		} else {
			s.queue = s.queue[n:]
		}
		if err != nil {
			s.shut()
		}
		s.mu.Unlock()
	}
}

// closeAfterQueue gives the process end of file once it has read everything.
func (s *stdinPipe) closeAfterQueue() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.closing {
		return fail("stdin_closed", "the standard input of the process is closed")
	}
	s.closing = true
	if !s.pumping {
		s.shut()
	}
	return nil
}

// end is for a process that is gone.
func (s *stdinPipe) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut()
}

func (s *stdinPipe) shut() {
	if s.closed {
		return
	}
	s.closed = true
	s.queue = nil
	if s.closeFile {
		s.file.Close()
	}
}
