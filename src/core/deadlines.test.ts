import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { Deadlines } from './deadlines.ts';

const day = 86_400_000;

function bench(): Disposable & { readonly clock: { now(): number; time: number }; readonly deadlines: Deadlines; readonly fired: string[]; pass(ms: number): void; arm(key: string, at: number): void } {
  mock.timers.enable({ apis: ['setTimeout'] });
  const clock = { time: 1_000_000, now: () => clock.time };
  const deadlines = new Deadlines(clock);
  const fired: string[] = [];
  return {
    clock,
    deadlines,
    fired,
    pass(ms) {
      // In small steps, so that clock and timers go together.
      for (let left = ms; left > 0; left -= 10) {
        clock.time += Math.min(10, left);
        mock.timers.tick(Math.min(10, left));
      }
    },
    arm: (key, at) => deadlines.arm(key, clock.time + at, () => fired.push(key)),
    [Symbol.dispose]() {
      deadlines.stop();
      mock.timers.reset();
    },
  };
}

describe('deadlines', () => {
  it('fire once, each at its time, in whatever order they were armed', () => {
    using it = bench();
    it.arm('late', 2500);
    it.arm('early', 30);
    it.arm('middle', 1200);
    it.pass(20);
    assert.deepEqual(it.fired, []);
    it.pass(20);
    assert.deepEqual(it.fired, ['early']);
    it.pass(1170);
    assert.deepEqual(it.fired, ['early', 'middle']);
    it.pass(5000);
    assert.deepEqual(it.fired, ['early', 'middle', 'late']);
    assert.equal(it.deadlines.size, 0);
  });

  it('fire at once, but never from within arm, when their time has passed', () => {
    using it = bench();
    it.arm('past', -5);
    assert.deepEqual(it.fired, []);
    it.pass(1);
    assert.deepEqual(it.fired, ['past']);
  });

  it('may be further away than a timer can count', () => {
    using it = bench();
    it.arm('month', 40 * day);
    it.pass(5000);
    assert.deepEqual(it.fired, []);
    it.clock.time += 40 * day;
    it.pass(1000);
    assert.deepEqual(it.fired, ['month']);
  });

  it('notice within a second that the clock was set forward', () => {
    using it = bench();
    it.arm('hour', 3_600_000);
    it.pass(500);
    it.clock.time += 3_600_000;
    it.pass(1000);
    assert.deepEqual(it.fired, ['hour']);
  });

  it('wait when the clock was set back', () => {
    using it = bench();
    it.arm('soon', 500);
    it.clock.time -= 10_000;
    it.pass(9000);
    assert.deepEqual(it.fired, []);
    it.pass(2000);
    assert.deepEqual(it.fired, ['soon']);
  });

  it('are replaced by a later one of the same key, and forgotten when disarmed', () => {
    using it = bench();
    it.arm('moved', 100);
    it.arm('moved', 3000);
    it.arm('gone', 100);
    it.deadlines.disarm('gone');
    it.pass(1000);
    assert.deepEqual(it.fired, []);
    it.pass(2100);
    assert.deepEqual(it.fired, ['moved']);
  });

  it('can be armed again from where one fires', () => {
    using it = bench();
    let rounds = 0;
    const again = (): void => {
      rounds += 1;
      it.deadlines.arm('again', it.clock.time + 100, again);
    };
    it.deadlines.arm('again', it.clock.time + 100, again);
    it.pass(1000);
    assert.ok(rounds >= 9, `${rounds} rounds`);
  });

  it('do not fire after stop', () => {
    using it = bench();
    it.arm('x', 10);
    it.deadlines.stop();
    it.arm('y', 10);
    it.pass(2000);
    assert.deepEqual(it.fired, []);
  });
});
