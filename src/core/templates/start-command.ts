import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../clock.ts';
import { PaddockError } from '../errors.ts';
import type { Guest, Host, ProcessExit } from '../host.ts';
import { newSandboxId, type TeamId } from '../ids.ts';
import type { NetworkPolicy } from '../network/rules.ts';
import type { Template } from '../template.ts';
import type { Tokens } from '../tokens.ts';
import type { BuildLog } from './build-log.ts';
import { BuildFailure } from './build-host.ts';
import { failingAs } from './failures.ts';
import type { Holds } from './holds.ts';
import type { Surroundings } from './plan.ts';
import type { StartState } from './template.ts';

export interface StartDeps {
  readonly host: Host;
  readonly clock: Clock;
  readonly tokens: Tokens;
  readonly holds: Holds;
  readonly times: StartTimes;
}

/** Milliseconds. */
export interface StartTimes {
  readonly pollEvery: number;
  readonly readyWithin: number;
  /** How long a start command without a ready command must live, or end well. */
  readonly settle: number;
}

export const startTimes: StartTimes = Object.freeze({ pollEvery: 2000, readyWithin: 600_000, settle: 2000 });

export interface StartInput {
  readonly template: Template;
  readonly teamId: TeamId;
  readonly network: NetworkPolicy;
  readonly surroundings: Surroundings;
  /** Who runs the commands when the template has no user of its own. */
  readonly defaultUser: string;
  readonly startCommand: string | null;
  readonly readyCommand: string | null;
  readonly log: BuildLog;
  /** Called when the commands have done their part, before the guest is saved. */
  readonly saving: () => Promise<void>;
}

const oneReadyWithin = 60_000;

/** Boots a sandbox nobody owns, lets the start command run in it until it is ready, and saves it. The hold keeps the checkpoint from being swept. */
export async function startState(deps: StartDeps, input: StartInput, signal: AbortSignal): Promise<{ readonly state: StartState; readonly hold: Disposable }> {
  const { host, tokens, holds } = deps;
  const { template, teamId, network, surroundings, log } = input;
  const id = newSandboxId();
  const defaultUser = surroundings.user ?? input.defaultUser;
  const identity = { sandboxId: id, hostname: `build-${id.slice(0, 8)}`, agentToken: tokens.agent({ id, generation: 1 }), defaultUser, sudo: surroundings.sudo, env: surroundings.env };
  const checkpointId = randomUUID();
  const hold = holds.share(`checkpoint:${checkpointId}`)!; // nobody else knows it
  try {
    await failingAs('boot_failed', signal, () => host.provision({ template, limits: template.limits, identity, teamId, network }, signal));
    await runCommands(deps, host.guest(id), input, signal);
    await input.saving();
    log.say('saving the template with its start command running');
    const checkpoint = await failingAs('snapshot_failed', signal, () => host.checkpoint(id, { checkpointId, hold: true }, signal));
    return { state: { checkpoint, sandboxId: id }, hold };
  } catch (error) {
    hold[Symbol.dispose]();
    throw error;
  } finally {
    await host.destroy(id);
  }
}

async function runCommands(deps: StartDeps, guest: Guest, input: StartInput, build: AbortSignal): Promise<void> {
  const { startCommand, readyCommand } = input;
  const over = new AbortController();
  const signal = AbortSignal.any([build, over.signal]);
  const started: { exit: ProcessExit | null; lost: PaddockError | null; following: Promise<void> } = { exit: null, lost: null, following: Promise.resolve() };
  try {
    if (startCommand !== null) {
      input.log.say(`start: ${firstLine(startCommand)}`);
      const process = await failingAs('start_cmd_failed', build, () => guest.start({ ...commandOf(startCommand, input), kind: 'background' }, signal));
      started.following = follow(guest, process.id, input.log, signal, (exit) => (started.exit = exit)).catch((error: unknown) => {
        if (!signal.aborted) started.lost = PaddockError.from(error);
      });
    }
    if (readyCommand === null) await settle(deps, started, build);
    else await pollReady(deps, guest, readyCommand, input, started, build);
  } finally {
    over.abort();
    await started.following;
    input.log.closeLines();
  }
}

type Started = { readonly exit: ProcessExit | null; readonly lost: PaddockError | null };

/** A start command may end well: some leave their program running behind them. */
function assertGoing({ exit, lost }: Started): void {
  if (lost !== null) throw new BuildFailure('start_cmd_failed', lost.code === 'gone' ? `its guest ended${lost.detail.reason === undefined ? '' : `: ${lost.detail.reason}`}` : lost.message);
  if (exit !== null && exit.exitCode !== 0) throw new BuildFailure('start_cmd_failed', exit.signal === null ? `exited with code ${exit.exitCode}` : `ended by ${exit.signal}`);
}

async function settle({ times }: StartDeps, started: Started, signal: AbortSignal): Promise<void> {
  for (let waited = 0; waited < times.settle && started.exit === null; waited += 50) {
    await sleep(Math.min(50, times.settle), undefined, { signal }).catch(() => signal.throwIfAborted());
    assertGoing(started);
  }
  assertGoing(started);
}

async function pollReady({ clock, times }: StartDeps, guest: Guest, readyCommand: string, input: StartInput, started: Started, signal: AbortSignal): Promise<void> {
  const begun = clock.now();
  input.log.say(`waiting until this succeeds: ${firstLine(readyCommand)}`);
  for (;;) {
    const outcome = await tryReady(guest, readyCommand, input, signal);
    signal.throwIfAborted();
    assertGoing(started);
    if (outcome === 'ready') return;
    const waited = clock.now() - begun;
    if (waited >= times.readyWithin) throw new BuildFailure('ready_cmd_failed', `not ready after ${Math.round(waited / 1000)}s: ${outcome}`);
    await sleep(times.pollEvery, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** `ready`, or what went wrong this time. */
async function tryReady(guest: Guest, readyCommand: string, input: StartInput, build: AbortSignal): Promise<string> {
  const signal = AbortSignal.any([build, AbortSignal.timeout(oneReadyWithin)]);
  let process = '';
  let outcome = 'the command did not end';
  try {
    for await (const event of guest.run({ ...commandOf(readyCommand, input), kind: 'command' }, signal)) {
      if (event.type === 'started') process = event.process.id;
      if (event.type === 'exit') outcome = event.exit.exitCode === 0 ? 'ready' : `exited with code ${event.exit.exitCode}`;
    }
  } catch (error) {
    build.throwIfAborted();
    const { code, message, detail } = PaddockError.from(error);
    if (code === 'gone') throw new BuildFailure('ready_cmd_failed', `its guest ended${detail.reason === undefined ? '' : `: ${detail.reason}`}`);
    if (code === 'invalid_argument') throw new BuildFailure('ready_cmd_failed', message);
    outcome = signal.aborted ? `it took longer than ${oneReadyWithin / 1000}s` : message;
  } finally {
    // It must not be found in every sandbox.
    if (process !== '') await guest.removeProcess(process, AbortSignal.timeout(5000)).catch(() => false);
  }
  return outcome;
}

async function follow(guest: Guest, process: string, log: BuildLog, signal: AbortSignal, ended: (exit: ProcessExit) => void): Promise<void> {
  for await (const event of guest.output(process, 0, true, signal)) {
    if (event.type === 'stdout' || event.type === 'stderr') log.write(event.type, event.data);
    else if (event.type === 'exit') ended(event.exit);
  }
}

function commandOf(command: string, { surroundings, defaultUser }: StartInput) {
  return {
    cmd: command,
    argv: ['/bin/sh', '-c', command],
    stdin: false,
    user: surroundings.user ?? defaultUser,
    env: surroundings.env,
    ...(surroundings.workdir === null ? {} : { cwd: surroundings.workdir }),
  } as const;
}

function firstLine(command: string): string {
  const [line = ''] = command.split('\n');
  return line.length > 200 || line.length < command.length ? `${line.slice(0, 200)} …` : line;
}
