import { randomUUID } from 'node:crypto';
import { abandoned } from './abandoned.ts';
import type { Clock } from './clock.ts';
import { Deadlines } from './deadlines.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import { runForeground } from './foreground.ts';
import type { Guest, OutputEvent, ProcessInfo, ProcessSpec, StartedProcess } from './host.ts';
import type { SandboxRef } from './ids.ts';
import { OutputCollector, type CommandResult } from './output.ts';
import type { Principal } from './principal.ts';
import { ProcessIndex, type KnownProcess } from './process-index.ts';
import { assertedSize, processSpec, ptySpec, type PtyInput, type RunInput } from './process-input.ts';
import { ProcessTimeouts } from './process-timeouts.ts';
import { Readers } from './readers.ts';
import type { Sandbox } from './sandbox.ts';
import type { Sandboxes } from './sandboxes.ts';
import type { CoreSettings } from './settings.ts';
import type { Store } from './store.ts';
import { Waits } from './waits.ts';

export type { CommandResult } from './output.ts';
export type { PtyInput, RunInput } from './process-input.ts';

export interface ProcessesDeps {
  readonly sandboxes: Sandboxes;
  readonly store: Store;
  readonly clock: Clock;
  readonly settings: CoreSettings;
  readonly events: EventLog;
}

const forgetWithinMs = 5000;
const processId = /^[A-Za-z0-9_-]{1,64}$/;

/** Commands, stdio sessions and terminals inside sandboxes. Their deadlines are counted here, never by the guest. */
export class Processes {
  readonly #sandboxes: Sandboxes;
  readonly #clock: Clock;
  readonly #settings: CoreSettings;
  readonly #events: EventLog;
  readonly #deadlines: Deadlines;
  readonly #timeouts: ProcessTimeouts;
  readonly #index = new ProcessIndex();
  readonly #readers = new Readers();
  readonly #waits = new Waits();
  /** Marks what this life of the server started: a foreground command with another mark has lost its request. */
  readonly #tag = `life ${randomUUID()}`;

  constructor(deps: ProcessesDeps) {
    this.#sandboxes = deps.sandboxes;
    this.#clock = deps.clock;
    this.#settings = deps.settings;
    this.#events = deps.events;
    this.#deadlines = new Deadlines(deps.clock);
    this.#timeouts = new ProcessTimeouts({ ...deps, deadlines: this.#deadlines });
    this.#sandboxes.onEnd((id) => {
      this.#index.forgetAll(id);
      this.#readers.forgetAll(id);
      // Rows that stay behind are dropped at the next start.
      this.#timeouts.clearAll(id).catch(() => undefined);
    });
  }

  /** Called once, after `Sandboxes.start`: arms the stored deadlines, and ends foreground commands that lost their request. */
  async start(): Promise<void> {
    const running = await this.#sandboxes.running();
    await this.#timeouts.start(running);
    // In the background: a guest that does not answer must not hold up the start.
    for (const sandbox of running) this.#endOrphans(sandbox).catch(() => undefined);
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
      const process = await this.#index.find(sandbox.id, guest, pid, signal);
      if (process === null || (process.kind !== 'background' && process.kind !== 'pty')) return null;
      return this.#waits.join(sandbox.id, process.id, signal, (all) => this.#collect(sandbox, guest, process, all));
    });
  }

  /** Ends the process group and forgets it; false when there is no such process, or it had ended. */
  async killByPid(principal: Principal, ref: SandboxRef, pid: number, signal: AbortSignal): Promise<boolean> {
    return this.#sandboxes.inside(principal, ref, async (guest, sandbox) => {
      const process = await this.#index.find(sandbox.id, guest, pid, signal);
      return process !== null && this.#kill(sandbox, guest, process, signal);
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
      return this.#read(sandbox, guest, { id, pid, kind }, after, signal);
    });
  }

  async writeStdio(principal: Principal, ref: SandboxRef, id: string, data: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#byId(principal, ref, id, (guest) => guest.writeStdin(id, data, signal));
  }

  async closeStdio(principal: Principal, ref: SandboxRef, id: string, signal: AbortSignal): Promise<void> {
    await this.#byId(principal, ref, id, (guest) => guest.closeStdin(id, signal));
  }

  /** Readers still get the exit; false when it had ended, or is unknown. */
  async killStdio(principal: Principal, ref: SandboxRef, id: string, signal: AbortSignal): Promise<boolean> {
    if (!processId.test(id)) return false;
    return this.#sandboxes.inside(principal, ref, (guest, sandbox) => this.#kill(sandbox, guest, { id, pid: 0, kind: 'stdio' }, signal));
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
      return this.#read(sandbox, guest, process, this.#readers.lastEntry(sandbox.id, process.id), signal);
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
    const deps = { clock: this.#clock, deadlines: this.#deadlines };
    const events = runForeground(deps, guest, spec, input.timeoutSeconds, signal, ({ pid, exit, durationMs }) =>
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
    return this.#sandboxes.inside(principal, ref, async (guest, sandbox) => {
      const process = await guest.start(spec, signal);
      try {
        await this.#timeouts.watch(sandbox, process, timeoutSeconds);
      } catch (error) {
        // Without its deadline it would run for ever.
        this.#forget(sandbox, guest, { ...process, kind: spec.kind });
        throw error;
      }
      this.#index.note(sandbox.id, process, spec.kind);
      this.#events.ofSandbox(sandbox, spec.kind === 'pty' ? 'pty' : 'command', 'process_started', { pid: process.pid, kind: spec.kind });
      return process;
    });
  }

  async #byPid<T>(
    principal: Principal,
    ref: SandboxRef,
    pid: number,
    signal: AbortSignal,
    work: (guest: Guest, process: KnownProcess, sandbox: Sandbox) => Promise<T>,
  ): Promise<T> {
    return this.#sandboxes.inside(principal, ref, async (guest, sandbox) => {
      const process = await this.#index.find(sandbox.id, guest, pid, signal);
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
      this.#index.forget(sandbox.id, process);
      throw noProcess(process.pid === 0 ? process.id : String(process.pid));
    }
  }

  async #kill(sandbox: Sandbox, guest: Guest, process: KnownProcess, signal: AbortSignal): Promise<boolean> {
    const waited = this.#waits.has(sandbox.id, process.id);
    try {
      // Whoever reads or waits gets the exit first, and forgets the process then.
      if (this.#readers.removeAfter(sandbox.id, process.id) || waited) return await guest.sendSignal(process.id, 'SIGKILL', signal);
      const killed = await guest.removeProcess(process.id, signal);
      this.#forget(sandbox, null, process);
      return killed;
    } catch (error) {
      if (!(error instanceof PaddockError) || error.code !== 'not_found') throw error;
      this.#forget(sandbox, null, process);
      return false;
    }
  }

  /** Follows a process to its end, then forgets it. */
  async #collect(sandbox: Sandbox, guest: Guest, process: KnownProcess, signal: AbortSignal): Promise<CommandResult | null> {
    const output = new OutputCollector(this.#settings.maxOutputBytes);
    try {
      for await (const event of guest.output(process.id, 0, true, signal)) output.take(event);
    } catch (error) {
      if (!(error instanceof PaddockError) || error.code !== 'not_found') throw error;
      this.#forget(sandbox, null, process);
      return null;
    }
    if (output.exit === null) throw new PaddockError('guest_unreachable', 'the connection to the sandbox broke off; wait for the command again');
    this.#forget(sandbox, this.#readers.removeAfter(sandbox.id, process.id) ? null : guest, process);
    return output.result(process.pid, output.exit);
  }

  async *#read(sandbox: Sandbox, guest: Guest, process: KnownProcess, after: number, signal: AbortSignal): AsyncGenerator<OutputEvent, void, undefined> {
    const { id } = process;
    let ended = false;
    this.#readers.enter(sandbox.id, id);
    try {
      for await (const event of guest.output(id, after, true, signal)) {
        if ('entry' in event) this.#readers.saw(sandbox.id, id, event.entry);
        ended = event.type === 'exit';
        yield event;
      }
    } catch (error) {
      throw signal.aborted ? abandoned(signal) : await this.#sandboxes.explain(sandbox, error);
    } finally {
      // A terminal that has shown its end is done; a stdio session can be read again until it is removed.
      if (ended && process.kind === 'pty') this.#readers.removeAfter(sandbox.id, id);
      if (this.#readers.leave(sandbox.id, id)) this.#forget(sandbox, guest, process);
    }
  }

  /** With a guest, it forgets the process too, in the background. */
  #forget(sandbox: Sandbox, guest: Guest | null, process: KnownProcess): void {
    this.#index.forget(sandbox.id, process);
    this.#readers.forget(sandbox.id, process.id);
    this.#timeouts.clear(sandbox.id, process.id).catch(() => undefined);
    // When this fails, the guest's own bound on ended processes will do it.
    guest?.removeProcess(process.id, AbortSignal.timeout(forgetWithinMs)).catch(() => false);
  }

  async #endOrphans(sandbox: Sandbox): Promise<void> {
    const guest = this.#sandboxes.guestOf(sandbox.id);
    if (guest === null) return;
    for (const process of await guest.processes(AbortSignal.timeout(forgetWithinMs))) {
      if (process.kind === 'command' && process.tag !== this.#tag) await guest.removeProcess(process.id, AbortSignal.timeout(forgetWithinMs));
    }
  }
}

function noProcess(name: string): PaddockError {
  return new PaddockError('not_found', `there is no process ${name} in this sandbox; it may have ended, or have been killed or waited for`);
}
