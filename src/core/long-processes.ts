import { abandoned } from './abandoned.ts';
import type { Deadlines } from './deadlines.ts';
import { PaddockError } from './errors.ts';
import type { Guest, OutputEvent, ProcessSpec, StartedProcess } from './host.ts';
import { OutputCollector, type CommandResult } from './output.ts';
import { ProcessIndex, type KnownProcess } from './process-index.ts';
import { ProcessTimeouts } from './process-timeouts.ts';
import type { ProcessesDeps } from './processes.ts';
import { Readers } from './readers.ts';
import type { Sandbox } from './sandbox.ts';
import { Waits } from './waits.ts';

const forgetWithinMs = 5000;

/**
 * Processes that outlive the request that started them: background commands, stdio sessions, terminals. What is known of
 * them here is small and goes with the sandbox; the guest knows them too, so a restart loses nothing.
 */
export class LongProcesses {
  readonly #deps: ProcessesDeps;
  readonly #timeouts: ProcessTimeouts;
  readonly #index = new ProcessIndex();
  readonly #readers = new Readers();
  readonly #waits = new Waits();

  constructor(deps: ProcessesDeps & { readonly deadlines: Deadlines }) {
    this.#deps = deps;
    this.#timeouts = new ProcessTimeouts(deps);
    deps.sandboxes.countProcessesWith({
      remaining: (id) => this.#timeouts.remaining(id),
      suspend: (id) => this.#timeouts.suspend(id),
      restart: async (sandbox, processes, same) => {
        if (!same) {
          // Other processes by the same names.
          this.#index.forgetAll(sandbox.id);
          this.#readers.forgetAll(sandbox.id);
        }
        await this.#timeouts.restart(sandbox, processes);
      },
    });
    deps.sandboxes.onEnd((id) => {
      this.#index.forgetAll(id);
      this.#readers.forgetAll(id);
      // Rows that stay behind are dropped at the next start.
      this.#timeouts.clearAll(id).catch(() => undefined);
    });
  }

  /** Arms the deadlines stored before a restart. */
  async resume(living: readonly Sandbox[]): Promise<void> {
    await this.#timeouts.start(living);
  }

  async start(sandbox: Sandbox, guest: Guest, spec: ProcessSpec, timeoutSeconds: number, signal: AbortSignal): Promise<StartedProcess> {
    const process = await guest.start(spec, signal);
    try {
      await this.#timeouts.watch(sandbox, process, timeoutSeconds);
    } catch (error) {
      // Without its deadline it would run for ever.
      this.forget(sandbox, guest, { ...process, kind: spec.kind });
      throw error;
    }
    this.#index.note(sandbox.id, process, spec.kind);
    this.#deps.events.ofSandbox(sandbox, spec.kind === 'pty' ? 'pty' : 'command', 'process_started', { pid: process.pid, kind: spec.kind });
    return process;
  }

  /** Lets a foreground command's deadline be known, so that a pause can carry over what is left of it. */
  note(sandbox: Sandbox, process: StartedProcess, at: number): Disposable {
    return this.#timeouts.note(sandbox.id, process.id, at);
  }

  /** The newest process with this pid. */
  async find(sandbox: Sandbox, guest: Guest, pid: number, signal: AbortSignal): Promise<KnownProcess | null> {
    return this.#index.find(sandbox.id, guest, pid, signal);
  }

  /** Where the newest reader of all was; 0 when nobody has read. */
  lastEntry(sandbox: Sandbox, process: KnownProcess): number {
    return this.#readers.lastEntry(sandbox.id, process.id);
  }

  /** Waits for the end and forgets the process; shared by all who wait. Null when the guest does not know it any more. */
  async wait(sandbox: Sandbox, guest: Guest, process: KnownProcess, caller: AbortSignal): Promise<CommandResult | null> {
    return this.#waits.join(sandbox.id, process.id, caller, (all) => this.#collect(sandbox, guest, process, all));
  }

  /**
   * Kills the group; false when it had ended. Whoever reads or waits gets the exit first, and forgets the process then. A
   * stdio session can be replayed after its end however it came, so it is left to the guest's own bound on ended processes.
   */
  async kill(sandbox: Sandbox, guest: Guest, process: KnownProcess, signal: AbortSignal): Promise<boolean> {
    const waited = this.#waits.has(sandbox.id, process.id);
    try {
      if (process.kind === 'stdio') return await guest.sendSignal(process.id, 'SIGKILL', signal);
      if (this.#readers.removeAfter(sandbox.id, process.id) || waited) return await guest.sendSignal(process.id, 'SIGKILL', signal);
      const killed = await guest.removeProcess(process.id, signal);
      this.forget(sandbox, null, process);
      return killed;
    } catch (error) {
      if (!(error instanceof PaddockError) || error.code !== 'not_found') throw error;
      this.forget(sandbox, null, process);
      return false;
    }
  }

  /** Output after an entry, to the exit. Leaving the loop leaves the process alone. */
  async *read(sandbox: Sandbox, guest: Guest, process: KnownProcess, after: number, signal: AbortSignal): AsyncGenerator<OutputEvent, void, undefined> {
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
      throw signal.aborted ? abandoned(signal) : await this.#deps.sandboxes.explain(sandbox, error);
    } finally {
      // A terminal that has shown its end is done; a stdio session can be read again.
      if (ended && process.kind === 'pty') this.#readers.removeAfter(sandbox.id, id);
      if (this.#readers.leave(sandbox.id, id)) this.forget(sandbox, guest, process);
    }
  }

  /** With a guest, that forgets the process too, in the background. */
  forget(sandbox: Sandbox, guest: Guest | null, process: KnownProcess): void {
    this.#index.forget(sandbox.id, process);
    this.#readers.forget(sandbox.id, process.id);
    this.#timeouts.clear(sandbox.id, process.id).catch(() => undefined);
    // When this fails, the guest's own bound on ended processes will do it.
    guest?.removeProcess(process.id, AbortSignal.timeout(forgetWithinMs)).catch(() => false);
  }

  async #collect(sandbox: Sandbox, guest: Guest, process: KnownProcess, signal: AbortSignal): Promise<CommandResult | null> {
    const output = new OutputCollector(this.#deps.settings.maxOutputBytes);
    try {
      for await (const event of guest.output(process.id, 0, true, signal)) output.take(event);
    } catch (error) {
      if (!(error instanceof PaddockError) || error.code !== 'not_found') throw error;
      this.forget(sandbox, null, process);
      return null;
    }
    if (output.exit === null) throw new PaddockError('guest_unreachable', 'the connection to the sandbox broke off; wait for the command again');
    this.forget(sandbox, this.#readers.removeAfter(sandbox.id, process.id) ? null : guest, process);
    return output.result(process.pid, output.exit);
  }
}
