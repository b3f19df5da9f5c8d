import type { SandboxState } from './sandbox.ts';

/**
 * Every move a sandbox may make. `killing` is on the way of every end that is asked for; a guest that died by itself goes
 * straight to `killed`. A failed create leaves no state at all: its row is removed. A restore takes a sandbox to `resuming` from
 * wherever it rests.
 */
export const transitions: Readonly<Record<SandboxState, readonly SandboxState[]>> = Object.freeze({
  creating: ['running', 'killing'],
  running: ['pausing', 'resuming', 'killing', 'killed'],
  pausing: ['paused', 'running', 'killing', 'killed'],
  paused: ['resuming', 'killing'],
  resuming: ['running', 'paused', 'killing', 'killed'],
  killing: ['killed'],
  killed: ['resuming'],
});

/** The states that `to` can be reached from, for a compare-and-set. */
export function statesBefore(to: SandboxState): readonly SandboxState[] {
  return (Object.keys(transitions) as SandboxState[]).filter((from) => transitions[from].includes(to));
}

/** States in which a guest is running, so that it can die. */
export const guestStates: readonly SandboxState[] = ['running', 'pausing', 'resuming'];
