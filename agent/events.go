package main

import (
	"sync"
	"time"
)

const (
	maxEvents         = 1024
	maxEventFollowers = 64
)

// event is one line of GET /v1/events. Fields that a type does not have are absent.
type event struct {
	N        uint64      `json:"n"`
	Type     string      `json:"type"`
	AtMS     int64       `json:"at_ms"`
	ID       string      `json:"id,omitempty"`
	PID      int         `json:"pid,omitempty"`
	Kind     string      `json:"kind,omitempty"`
	Tag      *string     `json:"tag,omitempty"`
	Exit     *exitStatus `json:"exit,omitempty"`
	Command  *string     `json:"command,omitempty"`
	RSSBytes int64       `json:"rss_bytes,omitempty"`
	Members  int         `json:"members,omitempty"`
}

// eventLog keeps the newest events and wakes those who follow.
type eventLog struct {
	mu        sync.Mutex
	events    []event
	last      uint64
	changed   chan struct{} // closed and replaced at each event
	followers int
}

func newEventLog() *eventLog { return &eventLog{changed: make(chan struct{})} }

func (l *eventLog) add(e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.N, e.AtMS = l.last, time.Now().UnixMilli()
	if len(l.events) == maxEvents {
		copy(l.events, l.events[1:])
		l.events = l.events[:maxEvents-1]
	}
	l.events = append(l.events, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

// since returns the events after n, the newest number, and a channel that is closed when there are more.
func (l *eventLog) since(n uint64) ([]event, uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.events)
	for i > 0 && l.events[i-1].N > n {
		i--
	}
	return append([]event(nil), l.events[i:]...), l.last, l.changed
}

// join counts a follower in; leave counts it out.
func (l *eventLog) join() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.followers >= maxEventFollowers {
		return fail("too_many", "%d clients already follow the events", maxEventFollowers)
	}
	l.followers++
	return nil
}

func (l *eventLog) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followers--
}
