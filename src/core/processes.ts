import { randomUUID } from 'node:crypto';
import type { Clock } from './clock.ts';
import { Deadlines } from './deadlines.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import { runForeground, type ForegroundDeps } from './foreground.ts';
import type { Guest, OutputEvent, ProcessInfo, ProcessSpec, StartedProcess } from './host.ts';
import type { SandboxRef } from './ids.ts';
import { LongProcesses } from './long-processes.ts';
import { OutputCollector, type CommandResult } from './output.ts';
import type { Principal } from './principal.ts';
import type { KnownProcess } from './process-index.ts';
import { assertedSize, processSpec, ptySpec, type PtyInput, type RunInput } from './process-input.ts';
import type { Sandbox } from './sandbox.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { CoreSettings } from './settings.ts';
import type { Store } from './store.ts';

export type { CommandResult } from './output.ts';
export type { PtyInput, RunInput } from './process-input.ts';

export interface ProcessesDeps {
  readonly sandboxes: Sandboxes;
  readonly store: Store;
  readonly clock: Clock;
  readonly settings: CoreSettings;
  readonly events: EventLog;
}

const orphanWithinMs = 5000;
const processId = /^[A-Za-z0-9_-]{1,64}$/;

/** Commands, stdio sessions and terminals inside sandboxes. Their deadlines are counted here, never by the guest. */
export class Processes {
  readonly #sandboxes: Sandboxes;
  readonly #clock: Clock;
  readonly #settings: CoreSettings;
  readonly #events: EventLog;
  readonly #deadlines: Deadlines;
  readonly #long: LongProcesses;
  /** Marks what this life of the server started: a foreground command with another mark has lost its request. */
  readonly #tag = `life ${randomUUID()}`;

  constructor(deps: ProcessesDeps) {
    this.#sandboxes = deps.sandboxes;
    this.#clock = deps.clock;
    this.#settings = deps.settings;
    this.#events = deps.events;
    this.#deadlines = new Deadlines(deps.clock);
    this.#long = new LongProcesses({ ...deps, deadlines: this.#deadlines });
  }

  /** Called once, after `Sandboxes.start`: arms the stored deadlines, and ends foreground commands that lost their request. */
  async start(): Promise<void> {
    const living = await this.#sandboxes.living();
    await this.#long.resume(living);
    // In the background: a guest that does not answer must not hold up the start.
    for (const sandbox of living) if (sandbox.state === 'running') this.#endOrphans(sandbox).catch(() => undefined);
  }

  /** Processes in the background go on. */
  stop(): void {
    this.#deadlines.stop();
  }

  /** Runs to the end. Throws `deadline_exceeded` with the output so far; a caller who leaves ends the command. */
  async run(principal: Principal, ref: SandboxRef, input: RunInput, signal: AbortSignal): Promise<CommandResult> {
    const output = new OutputCollector(this.#settings.maxOutputBytes);
    let pid = 0;
    try {
      for await (const event of await this.#foreground(principal, ref, input, signal)) {
        if (event.type === 'started') pid = event.process.pid;
        output.take(event);
      }
    } catch (error) {
      if (!(error instanceof PaddockError) || error.code !== 'deadline_exceeded') throw error;
      throw new PaddockError(error.code, error.message, { ...error.detail, partial: output.partial() }, { cause: error });
    }
    if (output.exit === null) throw new PaddockError('internal', 'the command ended without an exit');
    return output.result(pid, output.exit);
  }

  /** Resolves once the command has started. The stream ends with `exit`, or throws what ended it; leaving it ends the command. */
  async stream(principal: Principal, ref: SandboxRef, input: RunInput, signal: AbortSignal): Promise<AsyncIterable<OutputEvent>> {
    const events = await this.#foreground(principal, ref, input, signal);
    const first = await events.next();
    return (async function* () {
      if (first.done !== true) yield first.value;
      yield* events;
    })();
  }

  async startBackground(principal: Principal, ref: SandboxRef, input: RunInput, signal: AbortSignal): Promise<StartedProcess> {
    return this.#start(principal, ref, processSpec('background', input, this.#tag, this.#settings), input.timeoutSeconds, signal);
  }

  /** Background commands that run or were not waited for, and terminals that run. */
  async listBackground(principal: Principal, ref: SandboxRef, signal: AbortSignal): Promise<readonly ProcessInfo[]> {
    return this.#sandboxes.inside(principal, ref, async (guest) =>
      (await guest.processes(signal)).filter((process) => process.kind === 'background' || (process.kind === 'pty' && process.running)),
    );
  }

  /** Null for an unknown pid. Several may wait at once; afterwards the process is forgotten. A caller who leaves ends nothing. */
  async wait(principal: Principal, ref: SandboxRef, pid: number, signal: AbortSignal): Promise<CommandResult | null> {
    return this.#sandboxes.inside(principal, ref, async (guest, sandbox) => {
      const process = await this.#long.find(sandbox, guest, pid, signal);
      if (process === null || (process.kind !== 'background' && process.kind !== 'pty')) return null;
      return this.#long.wait(sandbox, guest, process, signal);
    });
  }

  /** Ends the process group and forgets it; false when there is no such process, or it had ended. */
  async killByPid(principal: Principal, ref: SandboxRef, pid: number, signal: AbortSignal): Promise<boolean> {
    return this.#sandboxes.inside(principal, ref, async (guest, sandbox) => {
      const process = await this.#long.find(sandbox, guest, pid, signal);
      return process !== null && this.#long.kill(sandbox, guest, process, signal);
    });
  }

  async writeStdin(principal: Principal, ref: SandboxRef, pid: number, data: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#byPid(principal, ref, pid, signal, (guest, process) => guest.writeStdin(process.id, data, signal));
  }

  async startStdio(principal: Principal, ref: SandboxRef, input: RunInput, signal: AbortSignal): Promise<StartedProcess> {
    return this.#start(principal, ref, processSpec('stdio', { ...input, stdin: true }, this.#tag, this.#settings), input.timeoutSeconds, signal);
  }

  /** All output after an entry, also when the process has ended; ends with `exit`. */
  async stdioOutput(principal: Principal, ref: SandboxRef, id: string, after: number, signal: AbortSignal): Promise<AsyncIterable<OutputEvent>> {
    if (!Number.isSafeInteger(after) || after < 0) throw new PaddockError('invalid_argument', `entries are counted from 0, not ${after}`, { field: 'last_entry_id' });
    return this.#byId(principal, ref, id, async (guest, sandbox) => {
      const { pid, kind } = await guest.process(id, signal);
      return this.#long.read(sandbox, guest, { id, pid, kind }, after, signal);
    });
  }

  async writeStdio(principal: Principal, ref: SandboxRef, id: string, data: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#byId(principal, ref, id, (guest) => guest.writeStdin(id, data, signal));
  }

  async closeStdio(principal: Principal, ref: SandboxRef, id: string, signal: AbortSignal): Promise<void> {
    await this.#byId(principal, ref, id, (guest) => guest.closeStdin(id, signal));
  }

  /** To the whole group of a process that is known by its id, whoever started it; false when it has ended. */
  async signal(principal: Principal, ref: SandboxRef, id: string, name: string, signal: AbortSignal): Promise<boolean> {
    return this.#byId(principal, ref, id, (guest) => guest.sendSignal(id, name, signal));
  }

  /** Readers still get the exit; false when it had ended, or is unknown. */
  async killStdio(principal: Principal, ref: SandboxRef, id: string, signal: AbortSignal): Promise<boolean> {
    if (!processId.test(id)) return false;
    return this.#sandboxes.inside(principal, ref, (guest, sandbox) => this.#long.kill(sandbox, guest, { id, pid: 0, kind: 'stdio' }, signal));
  }

  async startPty(principal: Principal, ref: SandboxRef, input: PtyInput, signal: AbortSignal): Promise<StartedProcess> {
    return this.#start(principal, ref, ptySpec(input, this.#tag, this.#settings), input.timeoutSeconds, signal);
  }

  /**
   * The first reader gets everything since the start; a later one goes on after what the others were given. Nobody reading
   * means nothing is missed. After a restart of the server, output starts again from what is kept.
   */
  async ptyOutput(principal: Principal, ref: SandboxRef, pid: number, signal: AbortSignal): Promise<AsyncIterable<OutputEvent>> {
    return this.#byPid(principal, ref, pid, signal, async (guest, process, sandbox) => {
      await guest.process(process.id, signal);
      return this.#long.read(sandbox, guest, process, this.#long.lastEntry(sandbox, process), signal);
    });
  }

  async writePty(principal: Principal, ref: SandboxRef, pid: number, data: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.writeStdin(principal, ref, pid, data, signal);
  }

  async resizePty(principal: Principal, ref: SandboxRef, pid: number, size: { readonly cols: number; readonly rows: number }, signal: AbortSignal): Promise<void> {
    const asserted = assertedSize(size);
    await this.#byPid(principal, ref, pid, signal, (guest, process) => guest.resize(process.id, asserted, signal));
  }

  async killPty(principal: Principal, ref: SandboxRef, pid: number, signal: AbortSignal): Promise<boolean> {
    return this.killByPid(principal, ref, pid, signal);
  }

  async #foreground(principal: Principal, ref: SandboxRef, input: RunInput, signal: AbortSignal): Promise<AsyncGenerator<OutputEvent, void, undefined>> {
    const spec = processSpec('command', input, this.#tag, this.#settings);
    const { sandbox, guest } = await this.#sandboxes.use(principal, ref);
    const deps: ForegroundDeps = { clock: this.#clock, deadlines: this.#deadlines, note: (process, at) => this.#long.note(sandbox, process, at) };
    const events = runForeground(deps, guest, inDirectoryOf(sandbox, spec), input.timeoutSeconds, signal, ({ pid, exit, durationMs }) =>
      this.#events.ofSandbox(sandbox, 'command', 'command_ended', { pid, exitCode: exit?.exitCode ?? null, reason: exit?.reason ?? null, durationMs }),
    );
    return this.#explained(sandbox, events);
  }

  async *#explained(sandbox: Sandbox, events: AsyncIterable<OutputEvent>): AsyncGenerator<OutputEvent, void, undefined> {
    try {
      yield* events;
    } catch (error) {
      throw await this.#sandboxes.explain(sandbox, error);
    }
  }

  async #start(principal: Principal, ref: SandboxRef, spec: ProcessSpec, timeoutSeconds: number, signal: AbortSignal): Promise<StartedProcess> {
    return this.#sandboxes.inside(principal, ref, (guest, sandbox) => this.#long.start(sandbox, guest, inDirectoryOf(sandbox, spec), timeoutSeconds, signal));
  }

  async #byPid<T>(
    principal: Principal,
    ref: SandboxRef,
    pid: number,
    signal: AbortSignal,
    work: (guest: Guest, process: KnownProcess, sandbox: Sandbox) => Promise<T>,
  ): Promise<T> {
    return this.#sandboxes.inside(principal, ref, async (guest, sandbox) => {
      const process = await this.#long.find(sandbox, guest, pid, signal);
      if (process === null) throw noProcess(String(pid));
      return this.#known(sandbox, process, () => work(guest, process, sandbox));
    });
  }

  async #byId<T>(principal: Principal, ref: SandboxRef, id: string, work: (guest: Guest, sandbox: Sandbox) => Promise<T>): Promise<T> {
    return this.#sandboxes.inside(principal, ref, async (guest, sandbox) => {
      if (!processId.test(id)) throw noProcess(id.slice(0, 64));
      return this.#known(sandbox, { id, pid: 0, kind: 'stdio' }, () => work(guest, sandbox));
    });
  }

  /** The guest may have forgotten a process that is known here. */
  async #known<T>(sandbox: Sandbox, process: KnownProcess, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof PaddockError) || error.code !== 'not_found') throw error;
      this.#long.forget(sandbox, null, process);
      throw noProcess(process.pid === 0 ? process.id : String(process.pid));
    }
  }

  async #endOrphans(sandbox: Sandbox): Promise<void> {
    const guest = this.#sandboxes.guestOf(sandbox.id);
    if (guest === null) return;
    for (const process of await guest.processes(AbortSignal.timeout(orphanWithinMs))) {
      // What ran before the last resume or restore has lost its request to the pause, and was to go on.
      const carriedOver = sandbox.startedAt !== sandbox.periodStartedAt && process.startedAt < (sandbox.periodStartedAt ?? 0);
      if (process.kind === 'command' && process.tag !== this.#tag && !carriedOver) await guest.removeProcess(process.id, AbortSignal.timeout(orphanWithinMs));
    }
  }
}

/** Where nothing else is said, processes begin in the directory that the template says. */
function inDirectoryOf({ template }: Sandbox, spec: ProcessSpec): ProcessSpec {
  const workdir = template.runtime?.workdir ?? null;
  return workdir === null || spec.cwd !== undefined ? spec : { ...spec, cwd: workdir };
}

function noProcess(name: string): PaddockError {
  return new PaddockError('not_found', `there is no process ${name} in this sandbox; it may have ended, or have been killed or waited for`);
}
