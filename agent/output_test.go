package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func drain(t *testing.T, o *output, after uint64) []frame {
	t.Helper()
	f, err := o.follow(after, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.leave()
	var all []byte
	for {
		buf, done := f.take(nil)
		all = append(all, buf...)
		if done {
			return parseFrames(t, all)
		}
	}
}

func kinds(frames []frame) string {
	var b bytes.Buffer
	for _, f := range frames {
		b.WriteByte('0' + f.kind)
	}
	return b.String()
}

func TestSmallWritesNobodyHasSeenBecomeOneEntry(t *testing.T) {
	o := newOutput(newOutputBudget(1<<20, 1<<20))
	o.append(1, []byte("a"))
	o.append(1, []byte("b"))
	o.append(2, []byte("c"))
	o.append(1, []byte("d"))
	if got := drain(t, o, 0); len(got) != 3 || got[0] != (frame{1, 1, "ab"}) || got[1] != (frame{2, 2, "c"}) || got[2] != (frame{1, 3, "d"}) {
		t.Errorf("%v", got)
	}
	o.append(1, []byte("e")) // 3 has been seen: it must not change
	if got := drain(t, o, 3); len(got) != 1 || got[0] != (frame{1, 4, "e"}) {
		t.Errorf("%v", got)
	}
}

func TestAReaderIsToldWhatTheBoundPushedOut(t *testing.T) {
	o := newOutput(newOutputBudget(10*(100+entryCost), 1<<30))
	for i := 0; i < 25; i++ {
		o.append(byte(1+i%2), bytes.Repeat([]byte("x"), 100)) // two streams, so that nothing is joined
	}
	o.finish(&exitStatus{})
	got := drain(t, o, 0)
	if got[0] != (frame{frameGap, 15, `{"lost_bytes":1500}`}) || len(got) != 12 || got[1].number != 16 || got[11].kind != frameExit || got[11].number != 26 {
		t.Errorf("%v", got)
	}
	if got := drain(t, o, 20); kinds(got) != "121214" {
		t.Errorf("%s", kinds(got))
	}
	for _, after := range []uint64{25, 26, 1 << 60, ^uint64(0)} {
		if got := drain(t, o, after); kinds(got) != "4" {
			t.Errorf("after %d: %v", after, got)
		}
	}
}

func TestOneSlowFollowerHoldsTheProcessAndSeveralGoAtThePaceOfTheFastest(t *testing.T) {
	o := newOutput(newOutputBudget(4*(100+entryCost), 1<<30))
	slow, _ := o.follow(0, true)
	write := func(i int) <-chan struct{} {
		done := make(chan struct{})
		go func() {
			o.append(byte(1+i%2), bytes.Repeat([]byte("x"), 100))
			close(done)
		}()
		return done
	}
	passes := func(done <-chan struct{}) bool {
		select {
		case <-done:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}
	for i := 0; i < 4; i++ {
		if !passes(write(i)) {
			t.Fatal("the buffer is not full yet")
		}
	}
	blocked := write(4)
	if passes(blocked) {
		t.Fatal("the only follower still needs the oldest entry")
	}
	fast, _ := o.follow(0, true)
	if passes(blocked) {
		t.Fatal("both followers still need the oldest entry")
	}
	fast.take(nil)
	if !passes(blocked) {
		t.Fatal("one follower has taken the oldest entry")
	}
	buf, _ := slow.take(nil)
	if got := parseFrames(t, buf); got[0].kind != frameGap || got[0].payload != `{"lost_bytes":100}` {
		t.Errorf("%v", got[0])
	}
	for i := 5; i < 9; i++ {
		write(i)
	}
	time.Sleep(50 * time.Millisecond)
	slow.leave()
	fast.leave()
	if !passes(write(10)) {
		t.Error("nobody follows any more")
	}
}

func TestTheBoundInAllLeavesEveryProcessItsFloor(t *testing.T) {
	budget := newOutputBudget(1<<20, 2<<20)
	var ended []*output
	budget.victims = func() []*output { return ended }
	fill := func(o *output) {
		for i := 0; i < 40; i++ {
			o.append(byte(1+i%2), make([]byte, 60_000))
		}
	}
	first := newOutput(budget)
	fill(first)
	first.finish(&exitStatus{})
	ended = append(ended, first)
	// Two processes whose only follower has stopped reading hold all there is.
	var pinned []*output
	var filling sync.WaitGroup
	for i := 0; i < 2; i++ {
		o := newOutput(budget)
		if _, err := o.follow(0, true); err != nil {
			t.Fatal(err)
		}
		pinned = append(pinned, o)
		filling.Add(1)
		go func() {
			defer filling.Done()
			fill(o)
		}()
	}
	eventually(t, "the memory is full", func() bool { return budget.total.Load() > budget.inAll-maxPayload })
	if first.dropUnread(); first.held != 0 {
		t.Error("the output of the ended process was kept")
	}
	// A third still goes on.
	third := newOutput(budget)
	fill(third)
	if got := drain(t, third, 0); got[len(got)-1].number != 40 {
		t.Errorf("it ended at %d", got[len(got)-1].number)
	}
	if total := budget.total.Load(); total > budget.inAll+outputFloor+maxPayload+entryCost {
		t.Errorf("%d bytes are held", total)
	}
	for _, o := range append(pinned, first, third) {
		o.mu.Lock()
		followers := make([]*follower, 0, 1)
		for f := range o.followers {
			followers = append(followers, f)
		}
		o.mu.Unlock()
		o.forget()
		for _, f := range followers {
			f.leave()
		}
	}
	filling.Wait()
	if total := budget.total.Load(); total != 0 {
		t.Errorf("%d bytes are left", total)
	}
}

func TestAForgottenOutputIsFreedByItsLastFollower(t *testing.T) {
	budget := newOutputBudget(1<<20, 1<<20)
	o := newOutput(budget)
	o.append(1, []byte("abc"))
	f, _ := o.follow(0, true)
	o.forget()
	o.finish(&exitStatus{})
	if buf, done := f.take(nil); kinds(parseFrames(t, buf)) != "14" || !done {
		t.Errorf("%v %v", parseFrames(t, buf), done)
	}
	f.leave()
	if budget.total.Load() != 0 {
		t.Error("still held")
	}
	o.append(1, []byte("late"))
	if budget.total.Load() != 0 {
		t.Error("held again")
	}
}

func TestWhatWasTakenLastIsKeptForBeingAskedAgain(t *testing.T) {
	const size = 4000
	o := newOutput(newOutputBudget(8*(size+entryCost), 1<<30))
	f, _ := o.follow(0, true)
	var count atomic.Int32
	go func() {
		for i := 0; i < 16; i++ {
			o.append(byte(1+i%2), make([]byte, size))
			count.Add(1)
		}
	}()
	stopsAt := func(want int32) {
		t.Helper()
		eventually(t, fmt.Sprint(want, " entries"), func() bool { return count.Load() == want })
		time.Sleep(30 * time.Millisecond)
		if got := count.Load(); got != want {
			t.Fatalf("%d entries, want %d", got, want)
		}
	}
	stopsAt(8)
	f.take(nil)
	stopsAt(14) // the last two of those it has taken are kept
	if got := drain(t, o, 6); kinds(got) != "12121212" || got[0].number != 7 {
		t.Errorf("%v", kinds(got))
	}
	// Unless memory is short for all: then what was taken is in nobody's way.
	o.budget.total.Store(1 << 30)
	o.room.Broadcast()
	stopsAt(16)
	if got := drain(t, o, 6); got[0].kind != frameGap || got[0].number != 8 {
		t.Errorf("%v %d", kinds(got), got[0].number)
	}
	o.forget()
	f.leave()
}

func TestWhatIsReservedWaitsForItsReaders(t *testing.T) {
	o := newOutput(newOutputBudget(3*(100+entryCost), 1<<30))
	append100 := func(n int) <-chan struct{} {
		done := make(chan struct{})
		go func() {
			for i := 0; i < n; i++ {
				o.append(byte(1+i%2), bytes.Repeat([]byte("x"), 100))
			}
			close(done)
		}()
		return done
	}
	passes := func(done <-chan struct{}) bool {
		select {
		case <-done:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}
	o.reserve(time.Hour)
	if !passes(append100(4)) {
		t.Fatal("nobody followed: nobody will be back")
	}
	f, _ := o.follow(4, true)
	o.reserve(time.Hour)
	f.leave()
	blocked := append100(4)
	if passes(blocked) {
		t.Fatal("what a reader will ask for was dropped")
	}
	back, _ := o.follow(4, true)
	var got []byte
	for i := 0; i < 3; i++ {
		<-back.wake
		buf, _ := back.take(nil)
		got = append(got, buf...)
		if len(parseFrames(t, got)) == 4 {
			break
		}
	}
	if frames := parseFrames(t, got); kinds(frames) != "1212" || frames[0].number != 5 || !passes(blocked) {
		t.Errorf("%v", frames)
	}
	back.leave()
	// Nobody comes back: it goes on after a while, or when nobody is expected any more.
	for _, c := range []struct {
		name string
		d    time.Duration
		end  func()
	}{{"its time is over", 20 * time.Millisecond, func() {}}, {"unreserve", time.Hour, o.unreserve}, {"forget", time.Hour, o.forget}} {
		f, _ := o.follow(8, true)
		o.reserve(c.d)
		f.leave()
		blocked = append100(8)
		c.end()
		if !passes(blocked) {
			t.Fatalf("%s: it is still blocked", c.name)
		}
	}
}

// Whatever is written, in whatever pieces, and however it is read: what arrives and what is reported as lost
// add up, numbers grow, and no frame is too large.
func TestBytesAreNeitherInventedNorForgotten(t *testing.T) {
	for seed := int64(0); seed < 200; seed++ {
		rnd := rand.New(rand.NewSource(seed))
		o := newOutput(newOutputBudget(300_000, 1<<30))
		f, _ := o.follow(0, true)
		var written, got uint64
		last := uint64(0)
		takeAll := func() {
			for {
				buf, done := f.take(nil)
				for _, fr := range parseFrames(t, buf) {
					if fr.kind != frameGap {
						got += uint64(len(fr.payload))
					} else {
						t.Fatalf("seed %d: the only follower lost something", seed)
					}
					if fr.kind != frameExit && fr.number != last+1 {
						t.Fatalf("seed %d: %d after %d", seed, fr.number, last)
					}
					last = fr.number
				}
				if done || len(buf) == 0 {
					return
				}
			}
		}
		for i := 0; i < 100; i++ {
			n := rnd.Intn(1 << uint(rnd.Intn(16)))
			if o.held+int64(n)+2*entryCost > 300_000 || rnd.Intn(10) == 0 {
				takeAll()
			}
			o.append(byte(1+rnd.Intn(2)), make([]byte, n+1))
			written += uint64(n + 1)
		}
		takeAll()
		if got != written {
			t.Fatalf("seed %d: %d of %d bytes", seed, got, written)
		}
	}
}
