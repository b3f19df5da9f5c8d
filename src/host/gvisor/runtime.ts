import { randomBytes } from 'node:crypto';
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../../core/errors.ts';
import type { GuestDeath } from '../../core/host.ts';
import type { Limits } from '../../core/template.ts';
import type { Artefact, Artefacts } from '../artefacts.ts';
import { type Cgroup, type CgroupStats, type CgroupVersion, childCgroups, detectCgroupVersion, openCgroup } from '../cgroup.ts';
import type { Instance } from '../instance.ts';
import { bootId, isRunning, sendSignal, startTime } from '../process-table.ts';
import type { GuestRoot, Origin, PauseState, Runtime, RuntimeHandle, SavedGuest } from '../runtime.ts';
import type { Slot } from '../slots.ts';
import { bundleConfig, hostMemoryLimit, originOf } from './bundle.ts';
import { type Deadline, Runsc, RunscError } from './command.ts';
import { Standstill } from './standstill.ts';

const startDeadlineMs = 30_000;

/** gVisor through its `runsc` command and its guests' control sockets. Guests are not children of the server: they live on when it ends. */
export class GvisorRuntime implements Runtime {
  readonly kind = 'gvisor';
  readonly build: string;
  readonly #instance: Instance;
  readonly #artefacts: Artefacts;
  readonly #builds = new Map<string, Promise<Runsc>>();
  readonly #standstill: Standstill;
  readonly #cgroupVersion: CgroupVersion;
  readonly #bootId = bootId();

  private constructor(instance: Instance, artefacts: Artefacts) {
    this.#instance = instance;
    this.#artefacts = artefacts;
    this.#standstill = new Standstill(instance.runscRoot, (build) => this.#runsc(build));
    this.#cgroupVersion = detectCgroupVersion();
    this.build = artefacts.runsc.digest;
  }

  static async open(instance: Instance, artefacts: Artefacts): Promise<GvisorRuntime> {
    const runtime = new GvisorRuntime(instance, artefacts);
    await runtime.#runsc(runtime.build);
    return runtime;
  }

  start(slot: Slot, root: GuestRoot, signal: AbortSignal): Promise<RuntimeHandle> {
    const { agent } = this.#artefacts;
    // What is written into the root itself must not hold anything of ours.
    return this.#make(slot, { build: this.build, agent, template: root, limits: root.limits, mountable: root.direct !== true }, ['run'], { signal, deadlineMs: startDeadlineMs });
  }

  async restore(slot: Slot, saved: SavedGuest, signal: AbortSignal): Promise<RuntimeHandle> {
    this.assertRestorable(saved);
    const { build, template, limits, mountable } = saved;
    const agent = this.#artefacts.findAgent(saved.agent)!;
    return this.#make(slot, { build, agent, template, limits, mountable }, ['restore', '--image-path', saved.dir], { signal, deadlineMs: restoreDeadline(limits) });
  }

  async #make(slot: Slot, from: { build: string; agent: Artefact; template: GuestRoot; limits: Limits; mountable: boolean }, [verb, ...options]: string[], deadline: Deadline): Promise<RuntimeHandle> {
    const { signal } = deadline;
    signal.throwIfAborted();
    const container = `g${randomBytes(8).toString('hex')}`; // fixed length: no id is a prefix of another
    const config = bundleConfig({ ...from, netns: slot.netns, cgroup: `/${this.#instance.cgroup}/${container}`, volumes: from.mountable ? slot.volumes : null });
    await writeFile(join(slot.bundle, 'config.json'), JSON.stringify(config));
    const memoryLimit = hostMemoryLimit(from.limits.memoryMb);
    const launching = new AbortController();
    try {
      const runsc = await this.#runsc(from.build);
      if (verb === 'restore') this.#limitEarly(container, memoryLimit, launching.signal).catch(() => undefined); // set again below
      await runsc.launch(slot, [verb!, '--detach', '--bundle', slot.bundle, '--pid-file', join(slot.dir, 'pid'), ...options, container], deadline, from.template.direct === true ? 'direct' : 'overlay');
      this.#cgroup(container).limitMemory(memoryLimit);
      const pid = Number(await readFile(join(slot.dir, 'pid'), 'utf8'));
      const pidStart = startTime(pid);
      if (pidStart === null) throw new Error('the guest ended while it was starting');
      return { runtime: this.kind, build: from.build, container, pid, pidStart, bootId: this.#bootId };
    } catch (reason) {
      const evidence = slot.readConsole() || tail(readIfPresent(join(slot.dir, 'runsc.log')));
      await this.destroy(container);
      if (signal.aborted) throw signal.reason;
      throw new Error(`runsc could not ${verb} a guest: ${evidence || (reason as Error).message}`, { cause: reason });
    } finally {
      launching.abort();
    }
  }

  /**
   * runsc limits a new guest to the size that the guest sees. A guest that is restored may need more already while its pages come in, so it
   * gets the host's limit as soon as its process has been told its size.
   */
  async #limitEarly(container: string, bytes: number, launching: AbortSignal): Promise<void> {
    const cgroup = this.#cgroup(container);
    while (!launching.aborted) {
      if (cgroup.pids().some((pid) => readIfPresent(`/proc/${pid}/cmdline`).includes('--total-memory'))) return cgroup.limitMemory(bytes);
      await sleep(15);
    }
  }

  origin(slot: Slot): Origin | null {
    const config = readIfPresent(join(slot.bundle, 'config.json'));
    return config === '' ? null : originOf(config);
  }

  pause(handle: RuntimeHandle): Promise<void> {
    return this.#standstill.pause(handle);
  }

  resume(handle: RuntimeHandle): Promise<void> {
    return this.#standstill.resume(handle);
  }

  pauseState(handle: RuntimeHandle): PauseState {
    return this.#standstill.state(handle.container);
  }

  forgetPause(handle: RuntimeHandle): void {
    this.#standstill.forget(handle.container);
  }

  async save(handle: RuntimeHandle, dir: string, deadline: Deadline): Promise<void> {
    const runsc = await this.#runsc(handle.build);
    await runsc.save(handle.container, dir, deadline).catch((reason: unknown) => {
      deadline.signal.throwIfAborted();
      if (reason instanceof RunscError && reason.output !== '') throw new Error(reason.output, { cause: reason });
      throw reason;
    });
  }

  assertRestorable({ build, agent }: Pick<SavedGuest, 'build' | 'agent'>): void {
    const lacking = this.#artefacts.findRunsc(build) === null ? `the runsc build ${build}` : this.#artefacts.findAgent(agent) === null ? `the agent ${agent}` : null;
    if (lacking !== null) throw new PaddockError('unprocessable', `This machine no longer has ${lacking} that the sandbox was saved with: put it back, and the sandbox can be restored.`);
  }

  #runsc(build: string): Promise<Runsc> {
    const known = this.#builds.get(build);
    if (known !== undefined) return known;
    const found = this.#artefacts.findRunsc(build);
    if (found === null) return Promise.reject(new PaddockError('unprocessable', `This machine no longer has the runsc build ${build}.`));
    const opened = Runsc.open(found, this.#instance.runscRoot);
    this.#builds.set(build, opened);
    opened.catch(() => this.#builds.delete(build));
    return opened;
  }

  isAlive(handle: RuntimeHandle): boolean {
    return isRunning(handle.pid, handle.pidStart);
  }

  freeze(container: string): Promise<void> {
    return this.#cgroup(container).freeze();
  }

  thaw(container: string): void {
    this.#cgroup(container).thaw();
  }

  stats(container: string): CgroupStats {
    return this.#cgroup(container).stats();
  }

  async autopsy(container: string, slot: Slot): Promise<GuestDeath> {
    let oomKills = 0;
    try {
      oomKills = this.#cgroup(container).stats().oomKills;
    } catch {
      // The group is gone: nothing to learn from it.
    }
    if (oomKills > 0) return { reason: 'out_of_memory', detail: 'The sandbox used more memory than its host allows and was ended by the kernel.' };
    const panic = tail(readIfPresent(join(slot.dir, 'panic.log')));
    if (panic !== '') return { reason: 'runtime_crashed', detail: panic };
    const console = tail(slot.readConsole());
    if (console !== '') return { reason: 'agent_lost', detail: console };
    return { reason: 'runtime_crashed', detail: tail(readIfPresent(join(slot.dir, 'runsc.log'))) || 'The guest ended without a message: its process was killed, or process 1 ended.' };
  }

  async destroy(container: string): Promise<void> {
    const cgroup = this.#cgroup(container);
    cgroup.thaw(); // under cgroup v1 a frozen process cannot be killed
    await killAll(cgroup);
    for (const name of this.#stateFiles()) {
      if (name.includes(container)) rmSync(join(this.#instance.runscRoot, name), { force: true });
    }
    await cgroup.remove();
  }

  async containers(): Promise<Set<string>> {
    const found = childCgroups(this.#instance.cgroup, this.#cgroupVersion);
    for (const name of this.#stateFiles()) {
      const id = /g[0-9a-f]{16}/.exec(name)?.[0];
      if (id !== undefined) found.add(id);
    }
    return found;
  }

  /** Files, not `runsc list`: it does not show what a killed runsc left. */
  #stateFiles(): string[] {
    return readdirSync(this.#instance.runscRoot);
  }

  #cgroup(container: string): Cgroup {
    return openCgroup(join(this.#instance.cgroup, container), this.#cgroupVersion);
  }
}

/** Pages come in at a GB a second here; a slow disk gives a tenth of that. */
function restoreDeadline({ memoryMb, diskMb }: Limits): number {
  return startDeadlineMs + (memoryMb + diskMb) * 10;
}

async function killAll(cgroup: Cgroup): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (let pause = 1; ; pause = Math.min(pause * 2, 20)) {
    const living = cgroup.pids().filter((pid) => startTime(pid) !== null);
    if (living.length === 0) return;
    if (Date.now() > deadline) throw new Error(`guest processes ${living.join(', ')} do not end`);
    for (const pid of living) sendSignal(pid, 'SIGKILL');
    await sleep(pause);
  }
}

function readIfPresent(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (reason) {
    if (['ENOENT', 'ESRCH'].includes((reason as NodeJS.ErrnoException).code ?? '')) return '';
    throw reason;
  }
}

/** The last lines of a log, at most 4 KiB. */
function tail(text: string): string {
  return text.trim().slice(-4096);
}
