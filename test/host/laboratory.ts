import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PaddockError } from '../../src/core/errors.ts';
import type { CheckpointRef, GuestDeath, GuestRef, Lap, RestoreSpec } from '../../src/core/host.ts';
import { newSandboxId, type SandboxId, type TeamId } from '../../src/core/ids.ts';
import type { NetworkPolicy } from '../../src/core/network/rules.ts';
import type { Template } from '../../src/core/template.ts';
import { type HostOptions, type LocalHost, openHost } from '../../src/host/host.ts';
import { guestGroupsOf, tracesOf, wipe } from '../harness/machine.ts';
import { artefactsDir } from '../harness/server.ts';

export const openNetwork: NetworkPolicy = { allow: [], deny: [] };
export const team = 'laboratory' as TeamId;
const deadlineMs = 60_000;

/** A sandbox as the core would know it. */
export interface Subject {
  readonly id: SandboxId;
  readonly token: string;
  readonly ref: GuestRef;
}

export interface Wishes {
  /** What becomes of it: the sandbox itself again, or somebody new. */
  readonly as?: Subject | null;
  readonly network?: NetworkPolicy;
  readonly lap?: Lap;
}

/** A host without a server, on a data directory of its own. */
export class Laboratory {
  readonly dataDir: string;
  readonly deaths = new Map<SandboxId, GuestDeath>();
  readonly complaints: string[] = [];
  readonly #options: Partial<HostOptions>;
  readonly #ids = new Set<SandboxId>();
  #host: LocalHost | null = null;

  constructor(options: Partial<HostOptions> = {}, dataDir = mkdtempSync(join(tmpdir(), 'paddock-host-'))) {
    this.dataDir = realpathSync(dataDir);
    this.#options = options;
  }

  get host(): LocalHost {
    if (this.#host === null) throw new Error('the host is not open');
    return this.#host;
  }

  get checkpointsDir(): string {
    return join(this.dataDir, 'checkpoints');
  }

  /** What is in the directory of checkpoints, finished or not. */
  get checkpointNames(): string[] {
    return existsSync(this.checkpointsDir) ? readdirSync(this.checkpointsDir).filter((name) => name !== 'lost+found') : [];
  }

  /** Guests on the machine, as the kernel has them. */
  get guests(): string[] {
    return guestGroupsOf(this.dataDir);
  }

  async open(): Promise<LocalHost> {
    const host = await this.prepare();
    await host.recover(new Map());
    return host;
  }

  /** A host that has not recovered anything yet. */
  async prepare(): Promise<LocalHost> {
    const complain = (facts: object, message: string): void => void this.complaints.push(`${message}: ${String((facts as { err?: unknown }).err ?? '')}`);
    const egress = { dnsUpstreams: [], upstreamProxy: null, extraCaFile: null };
    const host = await openHost({ dataDir: this.dataDir, artefactsDir, warmGuests: 0, egress, log: { info: () => {}, warn: complain, error: complain }, ...this.#options });
    host.onDeath((id, death) => this.deaths.set(id, death));
    this.#host = host;
    return host;
  }

  /** What a test left, so that it does not fail the next one. */
  async destroyAll(): Promise<void> {
    for (const id of this.#ids) await this.host.destroy(id);
    this.#ids.clear();
    for (const { id } of await this.host.checkpoints()) await this.host.removeCheckpoint(id);
  }

  /** Ends everything, by the host's own means; resolves to what it left on the machine. */
  async close(): Promise<string[]> {
    await this.#host?.teardown();
    const left = await tracesOf(this.dataDir);
    await wipe(this.dataDir);
    rmSync(this.dataDir, { recursive: true, force: true });
    return left;
  }

  async create(template: Template = this.host.templates.find('base')!): Promise<Subject> {
    const { id, token, identity } = this.someone();
    const ref = await this.host.provision({ template, limits: template.limits, identity, teamId: team, network: openNetwork }, AbortSignal.timeout(deadlineMs));
    return { id, token, ref };
  }

  /** An identity that nobody has yet; whoever gets it is ended by `destroyAll`. */
  someone(): { id: SandboxId; token: string; identity: RestoreSpec['identity'] } {
    const id = newSandboxId();
    const token = `token-of-${id}`;
    this.#ids.add(id);
    return { id, token, identity: identityOf(id, token) };
  }

  save(subject: Subject, hold: boolean, checkpointId: string = randomUUID(), lap?: Lap): Promise<CheckpointRef> {
    return this.host.checkpoint(subject.id, { checkpointId, hold, ...(lap === undefined ? {} : { lap }) }, AbortSignal.timeout(deadlineMs));
  }

  /** Saves it and lets go of it, as a pause does. */
  async pause(subject: Subject, checkpointId: string = randomUUID()): Promise<CheckpointRef> {
    const ref = await this.save(subject, true, checkpointId);
    await this.host.retire(subject.id, ref.id, paused);
    return ref;
  }

  async restore(checkpoint: CheckpointRef, saved: Subject, { as = null, network = openNetwork, lap }: Wishes = {}, signal = AbortSignal.timeout(deadlineMs)): Promise<Subject> {
    const { id, token, identity } = as === null ? this.someone() : { id: as.id, token: as.token, identity: identityOf(as.id, as.token) };
    this.#ids.add(id);
    const { limits } = this.host.templates.byDigest(checkpoint.template) ?? this.host.templates.find('base')!;
    const spec: RestoreSpec = { checkpoint, savedToken: saved.token, sameSandbox: as !== null, limits, identity, teamId: team, network, ...(lap === undefined ? {} : { lap }) };
    return { id, token, ref: await this.host.restore(spec, signal) };
  }

  /** What the command writes, both streams together. */
  async run({ id }: Subject, cmd: string, user = 'root'): Promise<string> {
    let said = '';
    for await (const event of this.host.guest(id).run({ cmd, kind: 'command', stdin: false, user }, AbortSignal.timeout(deadlineMs))) {
      if (event.type === 'stdout' || event.type === 'stderr') said += event.data.toString();
    }
    return said.trim();
  }

  async start({ id }: Subject, cmd: string): Promise<void> {
    await this.host.guest(id).start({ cmd, kind: 'background', stdin: false, user: 'root' }, AbortSignal.timeout(deadlineMs));
  }

  /** Lets a process in the sandbox hold so much memory, of which no page is like another. */
  async fillMemory(subject: Subject, mib: number): Promise<void> {
    await this.start(subject, `perl -e 'open F, "/dev/urandom"; read F, $held, ${mib} << 20; open READY, ">/tmp/filled"; close READY; sleep 1e6'`);
    await this.run(subject, 'while [ ! -e /tmp/filled ]; do sleep 0.05; done');
  }
}

export const paused = new PaddockError('conflict', 'the sandbox was paused', { reason: 'paused' });

/** Host processes of runsc commands that save this guest. */
export function saversOf({ ref }: Subject): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => Number.isInteger(pid))
    .filter((pid) => {
      const words = readCommand(pid);
      return words.includes('checkpoint') && words.includes(ref.container);
    });
}

function readCommand(pid: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return []; // it has ended
  }
}

export function identityOf(id: SandboxId, token: string): RestoreSpec['identity'] {
  return { sandboxId: id, hostname: `sbx-${id.slice(0, 8)}`, agentToken: token, defaultUser: 'user', sudo: true, env: {} };
}

/** Whether an error has this code and text. */
export function fails(code: string, text: RegExp): (reason: unknown) => boolean {
  return (reason) => {
    if (reason instanceof PaddockError && reason.code === code && text.test(reason.message)) return true;
    throw new Error(`expected ${code} ${String(text)}, got ${String((reason as PaddockError).code)}: ${String(reason)}`, { cause: reason });
  };
}
