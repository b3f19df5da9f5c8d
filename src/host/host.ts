import { randomBytes } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { PaddockError } from '../core/errors.ts';
import type { Guest, GuestDeath, GuestRef, GuestSpec, GuestUsage, Host, KnownGuest, Recovery } from '../core/host.ts';
import type { SandboxId, TeamId } from '../core/ids.ts';
import type { ConnectionEvent } from '../core/network/egress.ts';
import type { NetworkPolicy } from '../core/network/rules.ts';
import { AgentClient, agentPort, agentProtocol } from './agent/client.ts';
import { openCgroup } from './cgroup.ts';
import { diskUsage, mountPoints, removeDisk } from './disk.ts';
import { type EgressOptions, EgressSupervisor } from './egress/supervisor.ts';
import { GvisorRuntime, type RunscBuild } from './gvisor/runtime.ts';
import { Guests } from './guests.ts';
import { type Instance, openInstance } from './instance.ts';
import type { HostLog } from './log.ts';
import { ensureGateway, removeGateway } from './network/gateway.ts';
import { bootId } from './process-table.ts';
import type { Runtime, RuntimeHandle } from './runtime.ts';
import { HostSetupError } from './setup-error.ts';
import { type Slot, Slots } from './slots.ts';
import { type InstalledTemplates, loadTemplates } from './templates.ts';

export interface HostOptions {
  readonly dataDir: string;
  readonly artefactsDir: string;
  readonly subnet?: string | undefined;
  /** Guests that wait per template. */
  readonly warmGuests: number;
  readonly egress: EgressOptions;
  readonly log: HostLog;
}

/** A claimed guest. */
interface Tenant {
  readonly teamId: TeamId;
  readonly slot: Slot;
  readonly handle: RuntimeHandle;
  readonly client: AgentClient;
  cpu: { readonly at: number; readonly micros: number };
}

/** How often the guests' processes are looked at. A death is noticed within this time. */
const pulseMs = 200;
/** Slots that are kept built ahead of demand. */
const slotsAhead = 4;

/** This machine as a host of guests: gVisor, the gateway namespace, slots and agents behind the core's interface. */
export class LocalHost implements Host {
  readonly templates: InstalledTemplates;
  readonly #instance: Instance;
  readonly #runtime: Runtime;
  readonly #slots: Slots;
  readonly #guests: Guests;
  readonly #egress: EgressSupervisor;
  readonly #log: HostLog;
  readonly #tenants = new Map<SandboxId, Tenant>();
  readonly #endings = new Map<SandboxId, Promise<void>>();
  #deathListener: (id: SandboxId, death: GuestDeath) => void = () => {};
  #pulse: NodeJS.Timeout | null = null;

  constructor(instance: Instance, runtime: Runtime, templates: InstalledTemplates, options: HostOptions) {
    this.#instance = instance;
    this.#runtime = runtime;
    this.templates = templates;
    this.#log = options.log;
    this.#egress = new EgressSupervisor(instance, options.egress, options.log);
    this.#slots = new Slots(instance, { ahead: slotsAhead, diskMb: templates.list()[0]?.limits.diskMb ?? 5120, log: options.log });
    this.#guests = new Guests(runtime, this.#slots, { dataDir: options.dataDir, warmGuests: options.warmGuests, parallelBoots: availableParallelism() + 1, log: options.log });
  }

  /** The parent of all guests' cgroups on this host. */
  get cgroup(): string {
    return this.#instance.cgroup;
  }

  async provision(spec: GuestSpec, signal: AbortSignal): Promise<GuestRef> {
    const template = this.templates.byDigest(spec.template.digest);
    if (template === undefined) throw new PaddockError('not_found', `Template ${spec.template.name} (${spec.template.digest}) is not on this machine.`);
    const { sandboxId } = spec.identity;
    const { slot, handle, client } = await this.#guests.take(template, signal, spec.lap);
    try {
      // First the rules, then the identity: nothing of the owner's can run before both.
      await this.#egress.admit({ sandboxId, teamId: spec.teamId, address: slot.address, policy: spec.network });
      spec.lap?.('egress');
      await this.#guests.untilAnswered({ handle, client }, client.claim(spec.identity, randomBytes(16).toString('hex'), randomBytes(64), spec.limits, signal));
      signal.throwIfAborted();
      spec.lap?.('claim');
    } catch (reason) {
      client.end(new PaddockError('gone', 'the sandbox was not completed'));
      await this.#dispose({ slot, handle });
      throw reason;
    }
    this.#tenants.set(sandboxId, { teamId: spec.teamId, slot, handle, client, cpu: { at: Date.now(), micros: 0 } });
    return { ...handle, slot: slot.number, address: slot.address, agentPort, agentProtocol };
  }

  async recover(known: ReadonlyMap<SandboxId, KnownGuest>): Promise<ReadonlyMap<SandboxId, Recovery>> {
    await ensureGateway(this.#instance);
    const recovered = new Map<SandboxId, Recovery>();
    await Promise.all([...known].map(async ([id, guest]) => recovered.set(id, await this.#attach(id, guest))));
    const entries = [...known].flatMap(([sandboxId, { ref, teamId, network }]) =>
      recovered.get(sandboxId)?.alive === true ? [{ sandboxId, teamId, address: ref.address, policy: network }] : [],
    );
    await this.#egress.start(entries);
    await this.#sweep();
    this.#slots.start();
    for (const template of this.templates.list()) this.#guests.keep(template);
    this.#pulse = setInterval(() => this.#takePulse(), pulseMs);
    this.#pulse.unref();
    return recovered;
  }

  async #attach(id: SandboxId, { ref, agentToken, teamId }: KnownGuest): Promise<Recovery> {
    if (ref.bootId !== bootId()) return { alive: false, death: { reason: 'host_rebooted', detail: 'The machine was rebooted while the sandbox ran.' } };
    const slot = await this.#slots.adopt(ref.slot, 0);
    if (!this.#runtime.isAlive(ref)) {
      const death = await this.#runtime.autopsy(ref.container, slot);
      return { alive: false, death };
    }
    this.#runtime.thaw(ref.container);
    const client = new AgentClient(ref.address, agentToken, () => this.#runtime.isAlive(ref));
    try {
      await client.untilListening(AbortSignal.timeout(10_000), 10_000);
      await client.processes(AbortSignal.timeout(5_000)); // proves that the guest knows its token
    } catch (reason) {
      client.end(new PaddockError('gone', 'the sandbox could not be re-attached'));
      return { alive: false, death: { reason: 'agent_lost', detail: `The agent did not answer after the server's restart: ${(reason as Error).message}` } };
    }
    this.#tenants.set(id, { teamId, slot, handle: ref, client, cpu: { at: Date.now(), micros: 0 } });
    return { alive: true };
  }

  /** Ends and removes everything of this instance that no tenant uses. */
  async #sweep(): Promise<void> {
    const tenants = [...this.#tenants.values()];
    const containers = new Set(tenants.map((tenant) => tenant.handle.container));
    const slots = new Set(tenants.map((tenant) => tenant.slot.number));
    const orphans = [...(await this.#runtime.containers())].filter((container) => !containers.has(container));
    await Promise.all(orphans.map((container) => this.#runtime.destroy(container)));
    const spare = [...(await this.#slots.leftovers())].filter((number) => !slots.has(number));
    await Promise.all(spare.map((number) => this.#slots.discard(number)));
    if (orphans.length > 0) this.#log.info({ guests: orphans.length, slots: spare.length }, 'leftovers of an earlier run were removed');
  }

  guest(id: SandboxId): Guest {
    return this.#tenant(id).client;
  }

  async setNetwork(id: SandboxId, policy: NetworkPolicy): Promise<void> {
    const { slot, teamId } = this.#tenant(id);
    await this.#egress.admit({ sandboxId: id, teamId, address: slot.address, policy });
  }

  onConnections(listener: (events: readonly ConnectionEvent[]) => Promise<void>): void {
    this.#egress.onConnections(listener);
  }

  async usage(id: SandboxId): Promise<GuestUsage> {
    const tenant = this.#tenant(id);
    const { cpuMicros, memoryBytes } = this.#runtime.stats(tenant.handle.container);
    const at = Date.now();
    const elapsedMs = Math.max(1, at - tenant.cpu.at);
    const cpuPercent = tenant.cpu.micros === 0 ? 0 : Math.max(0, (cpuMicros - tenant.cpu.micros) / 10 / elapsedMs);
    tenant.cpu = { at, micros: cpuMicros };
    return { at, cpuPercent, memoryBytes, diskBytes: await diskUsage(tenant.slot.disk.mount) };
  }

  destroy(id: SandboxId): Promise<void> {
    const tenant = this.#tenants.get(id);
    if (tenant === undefined) return this.#endings.get(id) ?? Promise.resolve();
    return this.#end(id, tenant, new PaddockError('gone', 'the sandbox has been ended'));
  }

  onDeath(listener: (id: SandboxId, death: GuestDeath) => void): void {
    this.#deathListener = listener;
  }

  /** Lets go of the guests and leaves them running for the next start. */
  async close(): Promise<void> {
    if (this.#pulse !== null) clearInterval(this.#pulse);
    for (const { client } of this.#tenants.values()) client.end(new PaddockError('guest_unreachable', 'the server is stopping; the sandbox goes on'));
    this.#egress.close();
    await this.#guests.close();
    await this.#slots.close();
  }

  /** Ends every guest and removes everything that this instance ever made on the machine, the data directory's state excepted. */
  async teardown(): Promise<void> {
    await this.close();
    this.#tenants.clear();
    await this.#sweep();
    await this.#egress.end();
    await removeGateway(this.#instance);
    await openCgroup(this.#instance.cgroup).remove();
    for (const point of mountPoints()) if (point.startsWith(`${this.#instance.slotsDir}/`)) await removeDisk(`${point}.img`, point);
    rmSync(join(this.#instance.dataDir, 'host'), { recursive: true, force: true });
  }

  #tenant(id: SandboxId): Tenant {
    const tenant = this.#tenants.get(id);
    if (tenant === undefined) throw new PaddockError('gone', 'the sandbox has ended');
    return tenant;
  }

  #end(id: SandboxId, tenant: Tenant, error: PaddockError): Promise<void> {
    tenant.client.end(error);
    return this.#remember(id, this.#dispose(tenant));
  }

  /** The address must lead nowhere before the slot can become somebody else's. */
  async #dispose(guest: { readonly slot: Slot; readonly handle: RuntimeHandle }): Promise<void> {
    await this.#egress.expel(guest.slot.address);
    await this.#guests.dispose(guest);
  }

  #takePulse(): void {
    for (const [id, tenant] of this.#tenants) {
      if (!this.#runtime.isAlive(tenant.handle)) {
        this.#remember(id, this.#bury(id, tenant)).catch((reason: unknown) => this.#log.error({ err: reason, sandbox: id }, 'a dead guest could not be cleaned up'));
      }
    }
  }

  async #bury(id: SandboxId, tenant: Tenant): Promise<void> {
    const death = await this.#runtime.autopsy(tenant.handle.container, tenant.slot);
    tenant.client.end(new PaddockError('gone', `the sandbox has ended: ${death.reason}`, { reason: death.reason }));
    this.#deathListener(id, death);
    await this.#dispose(tenant);
  }

  /** From here on the guest is nobody's; whoever asks for its end waits for this one. */
  #remember(id: SandboxId, ending: Promise<void>): Promise<void> {
    this.#tenants.delete(id);
    const settled = ending.finally(() => this.#endings.delete(id));
    this.#endings.set(id, settled);
    return settled;
  }
}

/** Opens this machine as a host. Nothing is changed on it before `recover` is called. */
export async function openHost(options: HostOptions): Promise<LocalHost> {
  const instance = await openInstance(options.dataDir, options.subnet);
  const runsc = readArtefact<RunscBuild>(options.artefactsDir, 'runsc');
  const agent = readArtefact<{ path: string }>(options.artefactsDir, 'agent');
  const runtime = await GvisorRuntime.open(instance, runsc, agent.path);
  return new LocalHost(instance, runtime, loadTemplates(options.artefactsDir), options);
}

function readArtefact<T>(artefactsDir: string, name: string): T {
  const file = join(artefactsDir, name, 'current.json');
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as T;
  } catch (cause) {
    throw new HostSetupError(`${name} is not set up (${file} is missing): run "npm start", which sets everything up.`, { cause });
  }
}
