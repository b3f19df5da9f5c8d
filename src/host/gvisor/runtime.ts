import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { GuestDeath } from '../../core/host.ts';
import { type Cgroup, type CgroupStats, type CgroupVersion, childCgroups, detectCgroupVersion, openCgroup } from '../cgroup.ts';
import type { Instance } from '../instance.ts';
import { bootId, isRunning, sendSignal, startTime } from '../process-table.ts';
import type { Runtime, RuntimeHandle } from '../runtime.ts';
import type { Slot } from '../slots.ts';
import type { InstalledTemplate } from '../templates.ts';
import { runTool } from '../tool.ts';
import { bundleConfig, hostMemoryLimit } from './bundle.ts';

export interface RunscBuild {
  readonly path: string;
  readonly sha256: string;
  readonly version: string;
}

/**
 * runsc looks for this file to tell whether it is in the machine's own network namespace. Kernels from 6.13 on show it
 * in every namespace, and runsc then refuses to start; an empty file system over it, seen by runsc alone, helps.
 */
const launcher = 'mount -t tmpfs -o size=4k,mode=0555 none /proc/sys/net && exec "$@"';

const startDeadlineMs = 30_000;

/** gVisor through its `runsc` command. Guests are not children of the server: they live on when it ends. */
export class GvisorRuntime implements Runtime {
  readonly kind = 'gvisor';
  readonly build: string;
  readonly #instance: Instance;
  readonly #runsc: RunscBuild;
  readonly #agent: string;
  readonly #flags: readonly string[];
  readonly #cgroupVersion: CgroupVersion;
  readonly #bootId = bootId();

  private constructor(instance: Instance, runsc: RunscBuild, agent: string, flags: readonly string[]) {
    this.#instance = instance;
    this.#runsc = runsc;
    this.#agent = agent;
    this.#flags = flags;
    this.#cgroupVersion = detectCgroupVersion();
    this.build = runsc.sha256;
  }

  static async open(instance: Instance, runsc: RunscBuild, agent: string): Promise<GvisorRuntime> {
    return new GvisorRuntime(instance, runsc, agent, await supportedFlags(runsc.path));
  }

  async start(slot: Slot, template: InstalledTemplate, signal: AbortSignal): Promise<RuntimeHandle> {
    signal.throwIfAborted();
    const container = `g${randomBytes(8).toString('hex')}`; // fixed length: no id is a prefix of another
    const config = bundleConfig({ template, netns: slot.netns, cgroup: `/${this.#instance.cgroup}/${container}`, agent: this.#agent });
    await writeFile(join(slot.bundle, 'config.json'), JSON.stringify(config));
    try {
      await this.#launch(slot, ['run', '--detach', '--bundle', slot.bundle, '--pid-file', join(slot.dir, 'pid'), container], container, slot.disk.mount, signal);
      const pid = Number(await readFile(join(slot.dir, 'pid'), 'utf8'));
      const pidStart = startTime(pid);
      if (pidStart === null) throw new Error('the guest ended while it was starting');
      this.#cgroup(container).limitMemory(hostMemoryLimit(template.limits.memoryMb));
      return { runtime: this.kind, build: this.build, container, pid, pidStart, bootId: this.#bootId };
    } catch (reason) {
      const evidence = slot.readConsole() || tail(readIfPresent(join(slot.dir, 'runsc.log')));
      await this.destroy(container);
      if (signal.aborted) throw signal.reason;
      throw new Error(`runsc could not start a guest: ${evidence || (reason as Error).message}`, { cause: reason });
    }
  }

  /** Runs one runsc command to its end; the guest keeps the console it was given. */
  #launch(slot: Slot, command: readonly string[], container: string, overlay: string, signal: AbortSignal): Promise<void> {
    const console = openSync(slot.console, constants.O_RDWR | constants.O_NONBLOCK);
    const args = [
      '--mount', '--propagation', 'slave', '--', '/bin/sh', '-c', launcher, 'runsc', this.#runsc.path,
      '--root', this.#instance.runscRoot, '--network=sandbox', '--platform=systrap', `--overlay2=root:dir=${overlay}`,
      '--log', join(slot.dir, 'runsc.log'), '--panic-log', join(slot.dir, 'panic.log'), ...this.#flags, ...command,
    ];
    return new Promise<void>((resolve, reject) => {
      const child = spawn('unshare', args, { stdio: ['ignore', console, console], detached: true, env: { PATH: process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin' } });
      closeSync(console);
      const stop = (): void => {
        if (child.pid !== undefined) child.kill('SIGKILL');
      };
      const timer = setTimeout(stop, startDeadlineMs);
      signal.addEventListener('abort', stop, { once: true });
      const settle = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', stop);
      };
      child.on('error', (cause) => {
        settle();
        reject(new Error(`unshare could not be started for ${container}: ${cause.message}`, { cause }));
      });
      child.on('exit', (code, killedBy) => {
        settle();
        if (code === 0) resolve();
        else reject(new Error(`runsc ${command[0]} ended with ${killedBy ?? `exit code ${code}`}`));
      });
    });
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

/** The flags we would like, where this build knows them. */
async function supportedFlags(runsc: string): Promise<string[]> {
  // `runsc flags` exits with an error status on some builds; its text is what counts.
  const listed = await runTool('/bin/sh', ['-c', '"$0" flags 2>&1; true', runsc]);
  const known = (name: string): boolean => new RegExp(`^\\s+-${name}\\b`, 'm').test(listed);
  const wanted: [name: string, flag: string][] = [
    ['net-disconnect-ok', '--net-disconnect-ok'],
    ['cpu-num-from-quota', '--cpu-num-from-quota'],
    ['host-uds', '--host-uds=none'],
    ['host-fifo', '--host-fifo=none'],
  ];
  return wanted.filter(([name]) => known(name)).map(([, flag]) => flag);
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
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw reason;
  }
}

/** The last lines of a log, at most 4 KiB. */
function tail(text: string): string {
  return text.trim().slice(-4096);
}
