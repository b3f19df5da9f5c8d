package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	frameStdout    = 1
	frameStderr    = 2
	frameTerminal  = 3
	frameExit      = 4
	frameGap       = 5
	frameKeepAlive = 6
	frameStarted   = 7

	frameHeader  = 13
	maxPayload   = 65536
	entryCost    = 64 // what an entry costs besides its bytes, so that single bytes cannot fill the memory
	maxFollowers = 64

	// A follower who is back may be cut once more before anything was said, by the next checkpoint.
	backAgain = 5 * time.Second
)

// The bounds of the protocol page.
const (
	maxOutputPerProcess = 8 << 20
	maxOutputInAll      = 64 << 20
)

// Every process may keep this much whatever the others hold, so that full buffers that nobody empties cannot
// stop a process that has just been started.
const outputFloor = 16 << 10

// entry is one numbered piece of output; its number follows from its place.
type entry struct {
	stream byte
	data   []byte
}

func (e entry) cost() int64 { return int64(len(e.data)) + entryCost }

// output is what a process wrote: numbered entries in a bounded buffer that any number of readers follow.
//
// When it is full the oldest entries go if nobody follows or if some follower has taken them, and some more after them;
// if every follower still needs them, append blocks, which stops the reading of the process: back-pressure.
type output struct {
	budget *outputBudget

	mu        sync.Mutex
	room      sync.Cond // append waits here
	entries   []entry
	first     uint64 // number of entries[0]
	offset    uint64 // bytes before entries[0]
	held      int64  // what the entries cost
	dropped   int64  // what those before them cost
	delivered uint64 // highest number anybody was given
	marks     []mark
	exit      *exitStatus
	forgotten bool // nobody can begin to follow any more
	discard   bool // and nobody is left
	followers map[*follower]struct{}
	reserved  func() // ends the wait for followers who will be back; nil when nobody is expected
}

// mark remembers how many bytes lay before a dropped entry, for the gap frame of a reader that comes back.
type mark struct{ number, offset uint64 }

func newOutput(budget *outputBudget) *output {
	o := &output{budget: budget, first: 1, followers: map[*follower]struct{}{}}
	o.room.L = &o.mu
	return o
}

func (o *output) end() uint64 { return o.first + uint64(len(o.entries)) }

// append takes one piece of at most 64 KiB and keeps a copy. It blocks while every follower still needs what
// would have to go.
func (o *output) append(stream byte, data []byte) {
	cost := int64(len(data)) + entryCost
	o.budget.reclaim(cost)
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.exit == nil && !o.discard && !o.makeRoom(cost) {
		o.room.Wait()
	}
	if o.exit != nil || o.discard {
		return
	}
	// Small writes that nobody has seen yet become one entry: a log written line by line for hours stays compact.
	if n := len(o.entries); n > 0 && o.end()-1 > o.delivered {
		if last := &o.entries[n-1]; last.stream == stream && len(last.data)+len(data) <= maxPayload {
			last.data = append(last.data, data...)
			o.charge(int64(len(data)))
			o.notify()
			return
		}
	}
	o.entries = append(o.entries, entry{stream, append(make([]byte, 0, len(data)), data...)})
	o.charge(cost)
	o.notify()
}

// makeRoom tells whether cost more fits, having dropped what may go.
func (o *output) makeRoom(cost int64) bool {
	for {
		short := o.held > outputFloor && o.budget.total.Load()+cost > o.budget.inAll
		if len(o.entries) == 0 || !short && o.held+cost <= o.budget.perProcess {
			return true
		}
		if len(o.followers) == 0 && o.reserved != nil {
			return false
		}
		if len(o.followers) > 0 {
			// What was taken last may not have arrived when a connection is cut, and will be asked for again.
			spare := o.budget.perProcess / 4
			if short {
				spare = 0
			}
			taken := false
			for f := range o.followers {
				if f.next > o.first && f.taken-o.dropped-o.entries[0].cost() >= spare {
					taken = true
					break
				}
			}
			if !taken {
				return false
			}
		}
		o.dropFirst()
	}
}

func (o *output) dropFirst() {
	e := o.entries[0]
	if n := len(o.marks); n == 0 || o.first-o.marks[n-1].number >= 64 {
		if n == 1024 {
			for i := 0; i < n/2; i++ {
				o.marks[i] = o.marks[2*i]
			}
			o.marks = o.marks[:n/2]
		}
		o.marks = append(o.marks, mark{o.first, o.offset})
	}
	o.entries[0] = entry{}
	o.entries = o.entries[1:]
	o.first++
	o.offset += uint64(len(e.data))
	o.dropped += e.cost()
	o.charge(-e.cost())
}

// offsetOf is the number of bytes before a dropped entry, or a little less.
func (o *output) offsetOf(number uint64) uint64 {
	var offset uint64
	for _, m := range o.marks {
		if m.number > number {
			break
		}
		offset = m.offset
	}
	return offset
}

func (o *output) charge(n int64) {
	o.held += n
	o.budget.total.Add(n)
}

func (o *output) notify() {
	for f := range o.followers {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// finish ends the output: the exit frame follows the last entry.
func (o *output) finish(exit *exitStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.exit == nil {
		o.exit = exit
	}
	o.room.Broadcast()
	o.notify()
}

// forget lets the bytes go as soon as the last follower has left.
func (o *output) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgotten = true
	if len(o.followers) == 0 {
		o.release()
	}
}

func (o *output) release() {
	o.expectNobody()
	o.discard = true
	o.dropped += o.held
	o.charge(-o.held)
	o.first, o.entries = o.end(), nil
	o.room.Broadcast()
}

// dropUnread drops everything of an ended process that nobody follows; used when memory is short.
func (o *output) dropUnread() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.exit != nil && len(o.followers) == 0 && o.reserved == nil {
		for len(o.entries) > 0 {
			o.dropFirst()
		}
	}
}

// followed tells whether anybody is reading.
func (o *output) followed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.followers) > 0
}

// reserve keeps what is there, for so long as the sandbox runs, for the followers of this moment: their connections are
// about to be cut, and they will be back.
func (o *output) reserve(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.followers) > 0 {
		o.expect(d)
	}
}

func (o *output) expect(d time.Duration) {
	o.expectNobody()
	o.reserved = afterRunning(d, o.unreserve)
}

// unreserve lets the oldest go again when there is no room.
func (o *output) unreserve() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expectNobody()
}

func (o *output) expectNobody() {
	if o.reserved != nil {
		o.reserved()
		o.reserved = nil
		o.room.Broadcast()
	}
}

// follower is one reader's place in an output.
type follower struct {
	out   *output
	next  uint64 // the number wanted next
	taken int64  // what the entries before it cost
	until uint64 // without follow: stop before this number
	wake  chan struct{}
}

// follow starts reading after an entry. Without live the reader gets what is there and holds nobody up.
func (o *output) follow(after uint64, live bool) (*follower, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.followers) >= maxFollowers {
		return nil, fail("too_many", "the process already has %d followers", maxFollowers)
	}
	f := &follower{out: o, next: after + 1, wake: make(chan struct{}, 1)}
	if f.next > o.end() || f.next == 0 {
		f.next = o.end()
	}
	f.taken = o.dropped
	for n := o.first; n < f.next; n++ {
		f.taken += o.entries[n-o.first].cost()
	}
	if live {
		o.followers[f] = struct{}{}
		if o.reserved != nil {
			o.expect(backAgain)
		}
	} else {
		f.until = o.end()
	}
	return f, nil
}

func (f *follower) leave() {
	o := f.out
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.followers, f)
	if o.forgotten && len(o.followers) == 0 {
		o.release()
	}
	o.room.Broadcast()
}

// take appends the frames that are there, about 64 KiB at most, to buf. done means that nothing comes after them.
func (f *follower) take(buf []byte) (_ []byte, done bool) {
	o := f.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.next < o.first {
		lost := o.offset - o.offsetOf(f.next)
		buf = appendFrame(buf, frameGap, o.first-1, []byte(fmt.Sprintf(`{"lost_bytes":%d}`, lost)))
		f.next, f.taken = o.first, o.dropped
	}
	for f.next < o.end() && (f.until == 0 || f.next < f.until) {
		e := o.entries[f.next-o.first]
		if len(buf) > 0 && len(buf)+frameHeader+len(e.data) > maxPayload+2*frameHeader {
			break
		}
		buf = appendFrame(buf, e.stream, f.next, e.data)
		f.next++
		f.taken += e.cost()
	}
	if f.next-1 > o.delivered {
		o.delivered = f.next - 1
	}
	o.room.Broadcast()
	if f.until != 0 && f.next >= f.until && f.until < o.end() {
		return buf, true
	}
	if f.next < o.end() {
		select {
		case f.wake <- struct{}{}:
		default:
		}
		return buf, false
	}
	if o.exit != nil {
		payload, _ := json.Marshal(o.exit)
		return appendFrame(buf, frameExit, o.end(), payload), true
	}
	return buf, f.until != 0
}

func appendFrame(buf []byte, kind byte, number uint64, payload []byte) []byte {
	var head [frameHeader]byte
	head[0] = kind
	binary.BigEndian.PutUint64(head[1:], number)
	binary.BigEndian.PutUint32(head[9:], uint32(len(payload)))
	return append(append(buf, head[:]...), payload...)
}

// outputBudget bounds the outputs of all processes together.
type outputBudget struct {
	perProcess, inAll int64
	total             atomic.Int64
	// victims returns outputs that may be emptied, the best first.
	victims func() []*output
}

func newOutputBudget(perProcess, inAll int64) *outputBudget {
	return &outputBudget{perProcess: perProcess, inAll: inAll}
}

// reclaim empties outputs of ended processes that nobody reads when memory is short. It is called without any
// output's lock.
func (b *outputBudget) reclaim(cost int64) {
	if b.total.Load()+cost <= b.inAll || b.victims == nil {
		return
	}
	for _, o := range b.victims() {
		o.dropUnread()
		if b.total.Load()+cost <= b.inAll-b.inAll/16 {
			return
		}
	}
}
