import { existsSync, readFileSync, readdirSync, rmdirSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const standardRoot = '/sys/fs/cgroup';
const cgroup2Magic = 0x63677270; // linux/magic.h

export interface CgroupStats {
  /** CPU time used so far, in microseconds. */
  readonly cpuMicros: number;
  /** Memory that cannot be taken back without swapping, in bytes. */
  readonly memoryBytes: number;
  /** How often the kernel ended a process of the group for want of memory. */
  readonly oomKills: number;
}

/**
 * The cgroup of one guest, under cgroup v2 or the v1 hierarchies (also in hybrid layouts). runsc creates it, joins it and
 * sets the limits of the OCI configuration; what runsc cannot say is done here.
 */
export interface Cgroup {
  /** Sets the host's backstop for memory, above what the guest sees as its size. */
  limitMemory(bytes: number): void;
  /** Stops every process of the group; resolves when they have stopped. */
  freeze(): Promise<void>;
  thaw(): void;
  stats(): CgroupStats;
  /** Host pids in the group, over all hierarchies. */
  pids(): number[];
  /** Removes the group and those below it; the processes must be gone. */
  remove(): Promise<void>;
}

export type CgroupVersion = 1 | 2;

export function detectCgroupVersion(): CgroupVersion {
  return statfsSync(standardRoot).type === cgroup2Magic ? 2 : 1;
}

/** `path` is relative to the root of each hierarchy, without a leading slash. */
export function openCgroup(path: string, version: CgroupVersion = detectCgroupVersion(), root = standardRoot): Cgroup {
  return version === 2 ? new UnifiedCgroup(join(root, path)) : new LegacyCgroup(path);
}

/** Names of the groups right below `parent`, over all hierarchies. */
export function childCgroups(parent: string, version: CgroupVersion = detectCgroupVersion()): Set<string> {
  const names = new Set<string>();
  for (const hierarchy of version === 2 ? [standardRoot] : legacyHierarchies()) {
    for (const name of directories(join(hierarchy, parent))) names.add(name);
  }
  return names;
}

class UnifiedCgroup implements Cgroup {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  limitMemory(bytes: number): void {
    // One guest's processes are one unit: the kernel ends all of them or none.
    writeIfPresent(join(this.#dir, 'memory.oom.group'), '1');
    writeIfPresent(join(this.#dir, 'memory.swap.max'), '0');
    writeFileSync(join(this.#dir, 'memory.max'), String(bytes));
  }

  async freeze(): Promise<void> {
    writeFileSync(join(this.#dir, 'cgroup.freeze'), '1');
    await waitUntil(() => /^frozen 1$/m.test(readFileSync(join(this.#dir, 'cgroup.events'), 'utf8')), 'freeze');
  }

  thaw(): void {
    writeIfPresent(join(this.#dir, 'cgroup.freeze'), '0');
  }

  stats(): CgroupStats {
    const memory = readNumber(join(this.#dir, 'memory.current'));
    return {
      cpuMicros: field(join(this.#dir, 'cpu.stat'), 'usage_usec'),
      memoryBytes: Math.max(0, memory - field(join(this.#dir, 'memory.stat'), 'inactive_file')),
      oomKills: field(join(this.#dir, 'memory.events'), 'oom_kill'),
    };
  }

  pids(): number[] {
    return pidsBelow(this.#dir);
  }

  remove(): Promise<void> {
    return removeTree(this.#dir);
  }
}

class LegacyCgroup implements Cgroup {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  #dir(controller: string): string {
    return join(standardRoot, controller, this.#path);
  }

  limitMemory(bytes: number): void {
    const dir = this.#dir('memory');
    // memory+swap may never be below memory, so it goes first when growing.
    writeIfPresent(join(dir, 'memory.memsw.limit_in_bytes'), String(bytes));
    writeFileSync(join(dir, 'memory.limit_in_bytes'), String(bytes));
  }

  async freeze(): Promise<void> {
    const state = join(this.#dir('freezer'), 'freezer.state');
    writeFileSync(state, 'FROZEN');
    await waitUntil(() => readFileSync(state, 'utf8').trim() === 'FROZEN', 'freeze');
  }

  thaw(): void {
    writeIfPresent(join(this.#dir('freezer'), 'freezer.state'), 'THAWED');
  }

  stats(): CgroupStats {
    const memory = this.#dir('memory');
    return {
      cpuMicros: Math.round(readNumber(join(this.#dir('cpuacct'), 'cpuacct.usage')) / 1000),
      memoryBytes: Math.max(0, readNumber(join(memory, 'memory.usage_in_bytes')) - field(join(memory, 'memory.stat'), 'total_inactive_file')),
      oomKills: field(join(memory, 'memory.oom_control'), 'oom_kill'),
    };
  }

  pids(): number[] {
    const pids = new Set<number>();
    for (const hierarchy of legacyHierarchies()) for (const pid of pidsBelow(join(hierarchy, this.#path))) pids.add(pid);
    return [...pids];
  }

  async remove(): Promise<void> {
    for (const hierarchy of legacyHierarchies()) await removeTree(join(hierarchy, this.#path));
  }
}

/** Mounted v1 hierarchies; several controllers may share one through symbolic links, which are left out. */
function legacyHierarchies(): string[] {
  return readdirSync(standardRoot, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(standardRoot, entry.name, 'cgroup.procs')))
    .map((entry) => join(standardRoot, entry.name));
}

function directories(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (reason) {
    if (isMissing(reason)) return [];
    throw reason;
  }
}

function pidsBelow(dir: string): number[] {
  let text: string;
  try {
    text = readFileSync(join(dir, 'cgroup.procs'), 'utf8');
  } catch (reason) {
    if (isMissing(reason)) return [];
    throw reason;
  }
  const own = text.split('\n').filter(Boolean).map(Number).filter((pid) => pid > 0);
  return [...own, ...directories(dir).flatMap((name) => pidsBelow(join(dir, name)))];
}

async function removeTree(dir: string): Promise<void> {
  for (const name of directories(dir)) await removeTree(join(dir, name));
  // A group is busy until the kernel has let go of its last zombie, which takes seconds for one that held gigabytes.
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      rmdirSync(dir);
      return;
    } catch (reason) {
      if (isMissing(reason)) return;
      if ((reason as NodeJS.ErrnoException).code !== 'EBUSY' || Date.now() > deadline) throw reason;
      await sleep(10);
    }
  }
}

async function waitUntil(done: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 2000;
  for (let pause = 0; !done(); pause = Math.min(pause + 1, 5)) {
    if (Date.now() > deadline) throw new Error(`cgroup ${what} did not take effect within 2 s`);
    await sleep(pause);
  }
}

function readNumber(file: string): number {
  return Number(readFileSync(file, 'utf8'));
}

function field(file: string, name: string): number {
  try {
    return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(readFileSync(file, 'utf8'))?.[1] ?? 0);
  } catch (reason) {
    if (isMissing(reason)) return 0;
    throw reason;
  }
}

function writeIfPresent(file: string, value: string): void {
  try {
    writeFileSync(file, value, { flag: 'r+' });
  } catch (reason) {
    if (!isMissing(reason)) throw reason;
  }
}

function isMissing(reason: unknown): boolean {
  const { code } = reason as NodeJS.ErrnoException;
  return code === 'ENOENT' || code === 'ENODEV';
}
