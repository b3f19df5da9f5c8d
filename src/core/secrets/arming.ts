import { eachOf } from '../each-of.ts';
import { PaddockError } from '../errors.ts';
import type { EventLog } from '../events.ts';
import type { Host } from '../host.ts';
import type { Identities } from '../identity.ts';
import type { SandboxId, SecretId } from '../ids.ts';
import type { Sandbox } from '../sandbox.ts';
import type { Store } from '../store.ts';
import type { Equipment, SecretBindings } from './bindings.ts';

interface ArmingDeps {
  readonly store: Store;
  readonly host: Host;
  readonly events: EventLog;
  readonly bindings: SecretBindings;
  readonly identities: Identities;
}

/** A sandbox whose guest is being made, with the secrets it was made with. */
interface Making {
  readonly sandboxId: SandboxId;
  readonly secretIds: ReadonlySet<SecretId>;
  readonly over: Promise<unknown>;
}

const sandboxesAtOnce = 16;
const againAfterMs = 1000;
const withinMs = 10_000;

/**
 * Brings what is stored about secrets in force at the proxy. A change is in force everywhere when its call resolves; what could not be told
 * the proxy is told again until it takes it.
 */
export class Arming {
  readonly #deps: ArmingDeps;
  readonly #makings = new Set<Making>();
  /** The last step for each sandbox: the next one waits, so that the newest state is told last. */
  readonly #turns = new Map<SandboxId, Promise<unknown>>();
  readonly #again = new Map<SandboxId, NodeJS.Timeout>();
  #stopped = false;

  constructor(deps: ArmingDeps) {
    this.#deps = deps;
  }

  /**
   * Makes the guest of a sandbox, and puts in force what has changed meanwhile: a secret that is revoked while the work lasts, of a sandbox
   * that has no guest yet, is not overlooked.
   */
  async during<T>(sandboxId: SandboxId, secretIds: readonly SecretId[], work: () => Promise<T>): Promise<T> {
    if (secretIds.length === 0) return work();
    const { promise, resolve } = Promise.withResolvers<void>();
    const making: Making = { sandboxId, secretIds: new Set(secretIds), over: promise };
    this.#makings.add(making);
    try {
      const made = await work();
      await this.#inTurn(sandboxId, () => this.#arm(sandboxId, false));
      return made;
    } finally {
      this.#makings.delete(making);
      resolve();
    }
  }

  /** Puts today's bindings of one sandbox in force; with `variables` also what new processes of it find in their environment. */
  async arm(sandboxId: SandboxId, variables = false): Promise<void> {
    await Promise.all([...this.#makings].filter((making) => making.sandboxId === sandboxId).map(({ over }) => over));
    try {
      await this.#inTurn(sandboxId, () => this.#arm(sandboxId, variables));
    } catch (error) {
      this.#later(sandboxId);
      throw error;
    }
  }

  /** Puts a change of a secret in force wherever it is bound. Throws the first failure when all have been tried. */
  async armAll(secretId: SecretId): Promise<void> {
    const making = [...this.#makings].filter(({ secretIds }) => secretIds.has(secretId)).map(({ sandboxId }) => sandboxId);
    const affected = [...new Set([...making, ...(await this.#deps.store.secretBindings.sandboxesOf(secretId))])];
    const failures: unknown[] = [];
    await eachOf(affected, sandboxesAtOnce, (id) => this.arm(id).catch((error: unknown) => void failures.push(error)));
    if (failures.length === 0) return;
    throw new PaddockError('no_capacity', `it is stored, but not yet in force in ${failures.length} of ${affected.length} sandboxes: ${PaddockError.from(failures[0]).message}. It is tried again by itself`, { retryAfterSeconds: 2 }, { cause: failures[0] });
  }

  stop(): void {
    this.#stopped = true;
    for (const timer of this.#again.values()) clearTimeout(timer);
    this.#again.clear();
  }

  async #arm(sandboxId: SandboxId, variables: boolean): Promise<void> {
    const { store, host, bindings } = this.#deps;
    const sandbox = await store.sandboxes.find(null, { id: sandboxId });
    if (sandbox === null || !hasGuest(sandbox)) return;
    const equipment = await bindings.of(sandbox);
    try {
      await host.setInspection(sandboxId, equipment.inspection);
      // One that is being paused gets it when it goes on.
      if (variables && sandbox.state === 'running') await this.#tell(sandbox, equipment);
    } catch (error) {
      // Whoever makes it a guest again reads the rows then.
      if (PaddockError.from(error).code !== 'gone') throw error;
    }
  }

  async #tell(sandbox: Sandbox, equipment: Equipment): Promise<void> {
    const signal = AbortSignal.timeout(withinMs);
    try {
      await this.#deps.host.reidentify(this.#deps.identities.of(sandbox, equipment), sandbox.limits, signal);
    } catch (cause) {
      if (!signal.aborted) throw cause;
      throw new PaddockError('conflict', 'a snapshot of the sandbox is being made; try again when it is ready', { reason: 'snapshot_in_progress', retryAfterSeconds: 5 }, { cause });
    }
  }

  #later(sandboxId: SandboxId): void {
    if (this.#stopped || this.#again.has(sandboxId)) return;
    const timer = setTimeout(() => {
      this.#again.delete(sandboxId);
      this.arm(sandboxId, true).catch(() => undefined); // arms the next try
    }, againAfterMs);
    timer.unref();
    this.#again.set(sandboxId, timer);
  }

  #inTurn<T>(sandboxId: SandboxId, work: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(sandboxId) ?? Promise.resolve()).catch(() => undefined).then(work);
    this.#turns.set(sandboxId, turn);
    const settled = (): void => {
      if (this.#turns.get(sandboxId) === turn) this.#turns.delete(sandboxId);
    };
    turn.then(settled, settled);
    return turn;
  }
}

function hasGuest({ state }: Sandbox): boolean {
  return state === 'creating' || state === 'running' || state === 'pausing' || state === 'resuming';
}
