import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { SetupFailure } from './failure.mjs';

/**
 * Takes the lock of a directory: two set-ups (a start beside the tests) must not build the same thing.
 * flock(1) locks the open file description that it shares with us, so the kernel lets go when this process ends in
 * whatever way and there are no stale locks.
 *
 * @param {string} directory
 * @param {(line: string) => void} note told once when somebody else holds the lock
 * @returns {() => void} releases it
 */
export function acquireLock(directory, note) {
  const handle = openSync(directory, 'r');
  const take = (...options) => spawnSync('flock', [...options, '3'], { stdio: ['ignore', 'ignore', 'inherit', handle] });
  let outcome = take('--nonblock');
  if (outcome.status === 1) {
    note(`Another set-up is at work in ${directory}; waiting for it to finish.`);
    outcome = take();
  }
  if (outcome.status !== 0) {
    closeSync(handle);
    throw new SetupFailure(`${directory} could not be locked: use a file system that has flock(2).`);
  }
  return () => closeSync(handle);
}
