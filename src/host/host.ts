import { rmSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import { PaddockError } from '../core/errors.ts';
import type { CheckpointOptions, CheckpointRef, Guest, GuestDeath, GuestIdentity, GuestRef, GuestSpec, GuestUsage, Host, KnownGuest, Recovery, RestoreSpec } from '../core/host.ts';
import type { SandboxId } from '../core/ids.ts';
import type { ConnectionEvent, EgressEntry } from '../core/network/egress.ts';
import type { Inspection, InspectionEvent } from '../core/network/inspection.ts';
import type { NetworkPolicy } from '../core/network/rules.ts';
import type { Limits } from '../core/template.ts';
import type { BuildHost, ImageRequest, ImportedImage, LayerId, LayerRef, StepSpec, TemplateRoot } from '../core/templates/build-host.ts';
import type { VolumeUsage } from '../core/volume-storage.ts';
import { openArtefacts } from './artefacts.ts';
import { BuiltTemplates, Builds } from './builds/builds.ts';
import { openCgroup } from './cgroup.ts';
import { Checkpoints } from './checkpoints.ts';
import { Claiming } from './claiming.ts';
import { diskUsage } from './disk.ts';
import { entryOf } from './egress/entry.ts';
import { type EgressOptions, EgressSupervisor } from './egress/supervisor.ts';
import { GvisorRuntime } from './gvisor/runtime.ts';
import { Guests } from './guests.ts';
import type { ImageSource } from './images/source.ts';
import { type Instance, openInstance } from './instance.ts';
import { KeptGuests } from './kept.ts';
import type { HostLog } from './log.ts';
import { unmountAt } from './mounts.ts';
import { ensureGateway, removeGateway } from './network/gateway.ts';
import type { Needed } from './old-artefacts.ts';
import { reattach } from './reattach.ts';
import { Restoring } from './restoring.ts';
import { Room } from './room.ts';
import type { Runtime } from './runtime.ts';
import { restorableProtocol, Saving } from './saving.ts';
import { Slots } from './slots.ts';
import { type InstalledTemplates, loadTemplates } from './templates.ts';
import { type Tenant, Tenants } from './tenants.ts';
import { VolumeBinds } from './volumes/binds.ts';
import { OpenFiles } from './volumes/open-files.ts';
import { PutBack } from './volumes/put-back.ts';
import { ImageDisks } from './volumes/image-disks.ts';

export interface HostOptions {
  readonly dataDir: string;
  readonly artefactsDir: string;
  readonly subnet?: string | undefined;
  /** Guests that wait per template. */
  readonly warmGuests: number;
  /** Memory that paused guests may be kept in, over all; 0 keeps none. Default a quarter of the machine's. */
  readonly keptMemoryMb?: number | undefined;
  /** How long a paused guest is kept in memory at most. Default 600. */
  readonly keptSeconds?: number | undefined;
  readonly egress: EgressOptions;
  /** How large volumes are made. Default 4 GiB, 100,000 files. */
  readonly volumeLimits?: VolumeUsage | undefined;
  /** Where images for templates come from; without it none can be imported. */
  readonly images?: ImageSource | undefined;
  /** Builds one of the templates that set-up only offers. */
  readonly buildTemplate?: ((name: string) => Promise<void>) | undefined;
  readonly log: HostLog;
}

/** How often the guests' processes are looked at. A death is noticed within this time. */
const pulseMs = 200;
/** Slots that are kept built ahead of demand. */
const slotsAhead = 4;

/** This machine as a host of guests: gVisor, the gateway namespace, slots and agents behind the core's interface. */
export class LocalHost implements Host, BuildHost {
  readonly templates: InstalledTemplates;
  /** What the volumes of this machine lie on. */
  readonly volumeDisks: ImageDisks;
  readonly #instance: Instance;
  readonly #runtime: Runtime;
  readonly #slots: Slots;
  readonly #guests: Guests;
  readonly #egress: EgressSupervisor;
  readonly #room: Room;
  readonly #checkpoints: Checkpoints;
  readonly #kept: KeptGuests;
  readonly #saving: Saving;
  readonly #restoring: Restoring;
  readonly #claiming: Claiming;
  readonly #builds: Builds;
  readonly #log: HostLog;
  readonly #tenants: Tenants;
  readonly #openFiles: OpenFiles;
  readonly #closing = new AbortController();
  #deathListener: (id: SandboxId, death: GuestDeath) => void = () => {};
  #pulse: NodeJS.Timeout | null = null;

  constructor(instance: Instance, runtime: Runtime, templates: InstalledTemplates, options: HostOptions) {
    const { dataDir, log, warmGuests } = options;
    this.#instance = instance;
    this.#runtime = runtime;
    const built = new BuiltTemplates(instance.dataDir, templates, log);
    this.templates = built.templates;
    this.#log = log;
    this.#egress = new EgressSupervisor(instance, options.egress, log);
    // Guests that are only kept make room for those that are wanted.
    const relieve = (): Promise<boolean> => this.#kept.evictOldest();
    this.#room = new Room(dataDir, relieve);
    this.#slots = new Slots(instance, { ahead: slotsAhead, diskMb: templates.list()[0]?.limits.diskMb ?? 5120, relieve, log });
    this.#guests = new Guests(runtime, this.templates, this.#slots, this.#room, { warmGuests, parallelBoots: availableParallelism() + 1, log });
    this.#checkpoints = new Checkpoints(join(instance.dataDir, 'checkpoints'), log);
    const keptLimits = { memoryBytes: options.keptMemoryMb === undefined ? totalmem() / 4 : options.keptMemoryMb * 1024 * 1024, seconds: options.keptSeconds ?? 600 };
    this.#kept = new KeptGuests(runtime, keptLimits, (guest) => this.#guests.dispose(guest), log);
    this.#tenants = new Tenants(async (tenant) => {
      await this.#egress.expel(tenant.slot.address); // it must lead nowhere before the slot can become somebody else's
      await this.#guests.dispose(tenant);
    });
    this.volumeDisks = new ImageDisks(join(instance.dataDir, 'volumes'), { ...(options.volumeLimits ?? { bytes: 4 * 1024 ** 3, entries: 100_000 }), isKept: (id) => this.#checkpoints.has(id), log });
    const binds = new VolumeBinds(this.volumeDisks);
    this.#openFiles = new OpenFiles(this.volumeDisks);
    this.#saving = new Saving(runtime, this.#checkpoints, this.#egress, this.#openFiles, log);
    this.#claiming = new Claiming(this.#guests, this.#egress, this.#tenants, binds);
    const parts = { runtime, checkpoints: this.#checkpoints, slots: this.#slots, guests: this.#guests, room: this.#room, egress: this.#egress };
    this.#restoring = new Restoring({ ...parts, templates: this.templates, binds, putBack: new PutBack(this.volumeDisks, log) });
    this.#builds = new Builds({ ...parts, dataDir: instance.dataDir, built, images: options.images ?? null, tenants: this.#tenants, claiming: this.#claiming });
  }

  /** The parent of all guests' cgroups on this host. */
  get cgroup(): string {
    return this.#instance.cgroup;
  }

  /** What of this machine is nobody's at the moment, for whoever watches it. */
  occupancy(): { readonly waitingGuests: number; readonly keptGuests: number; readonly keptBytes: number; readonly readySlots: number } {
    return { waitingGuests: this.#guests.waiting, keptGuests: this.#kept.count, keptBytes: this.#kept.held, readySlots: this.#slots.ready };
  }

  async provision(spec: GuestSpec, signal: AbortSignal): Promise<GuestRef> {
    const template = this.templates.byDigest(spec.template.digest);
    if (template === undefined) throw new PaddockError('not_found', `Template ${spec.template.name} (${spec.template.digest}) is not on this machine.`);
    return this.#claiming.claim(await this.#guests.take(template, signal, spec.lap), spec, signal);
  }

  async recover(known: ReadonlyMap<SandboxId, KnownGuest>): Promise<ReadonlyMap<SandboxId, Recovery>> {
    await Promise.all([ensureGateway(this.#instance), this.#checkpoints.recover()]);
    const recovered = new Map<SandboxId, Recovery>();
    await Promise.all([...known].map(async ([id, guest]) => recovered.set(id, await this.#attach(id, guest))));
    const entries = [...known].flatMap(([sandboxId, guest]) => (recovered.get(sandboxId)?.alive === true ? [entryOf(sandboxId, guest.ref.address, guest)] : []));
    await this.#egress.start(entries);
    await this.#sweep();
    await this.#builds.recover();
    this.#slots.start();
    for (const template of this.templates.list()) this.#guests.keep(template);
    this.#pulse = setInterval(() => this.#takePulse(), pulseMs);
    this.#pulse.unref();
    return recovered;
  }

  async #attach(id: SandboxId, known: KnownGuest): Promise<Recovery> {
    const found = await reattach(known, this.#runtime, this.#slots);
    if ('death' in found) return { alive: false, death: found.death };
    this.#tenants.settle(id, known.teamId, found.guest, known.ref.agentProtocol);
    return { alive: true };
  }

  /** Ends and removes everything of this instance that no tenant uses. */
  async #sweep(): Promise<void> {
    const tenants = this.#tenants.all();
    const containers = new Set(tenants.map((tenant) => tenant.handle.container));
    const slots = new Set(tenants.map((tenant) => tenant.slot.number));
    const orphans = [...(await this.#runtime.containers())].filter((container) => !containers.has(container));
    await Promise.all(orphans.map((container) => this.#runtime.destroy(container)));
    const spare = [...(await this.#slots.leftovers())].filter((number) => !slots.has(number));
    await Promise.all(spare.map((number) => this.#slots.discard(number)));
    if (orphans.length > 0) this.#log.info({ guests: orphans.length, slots: spare.length }, 'leftovers of an earlier run were removed');
  }

  guest(id: SandboxId): Guest {
    return this.#tenants.get(id).client;
  }

  async setNetwork(id: SandboxId, policy: NetworkPolicy): Promise<void> {
    await this.#egress.revise(this.#tenants.get(id).slot.address, (entry) => ({ ...entry, policy }));
  }

  async setInspection(id: SandboxId, inspection: Inspection | null): Promise<void> {
    const change = ({ inspection: _before, ...entry }: EgressEntry): EgressEntry => (inspection === null ? entry : { ...entry, inspection });
    await this.#egress.revise(this.#tenants.get(id).slot.address, change, true);
  }

  async reidentify(identity: GuestIdentity, limits: Limits, signal: AbortSignal): Promise<void> {
    const tenant = this.#tenants.get(identity.sandboxId);
    if (tenant.agentProtocol < restorableProtocol) throw new PaddockError('unprocessable', 'the sandbox was started by an earlier version of Paddock, and its environment cannot be changed: create a new one');
    await this.#tenants.inTurn(tenant, async () => {
      if (tenant.held !== null) return; // it gets its identity anew when it goes on
      await tenant.client.refresh(identity, limits, signal);
    });
  }

  onConnections(listener: (events: readonly ConnectionEvent[]) => Promise<void>): void {
    this.#egress.onConnections(listener);
  }

  onInspections(listener: (events: readonly InspectionEvent[]) => Promise<void>): void {
    this.#egress.onInspections(listener);
  }

  async usage(id: SandboxId): Promise<GuestUsage> {
    const tenant = this.#tenants.get(id);
    const { cpuMicros, memoryBytes } = this.#runtime.stats(tenant.handle.container);
    const at = Date.now();
    const elapsedMs = Math.max(1, at - tenant.cpu.at);
    const cpuPercent = tenant.cpu.micros === 0 ? 0 : Math.max(0, (cpuMicros - tenant.cpu.micros) / 10 / elapsedMs);
    tenant.cpu = { at, micros: cpuMicros };
    return { at, cpuPercent, memoryBytes, diskBytes: await diskUsage(tenant.slot.disk.mount) };
  }

  async destroy(id: SandboxId): Promise<void> {
    const tenant = this.#tenants.find(id);
    if (tenant === undefined) await this.#tenants.departed(id);
    else await this.#tenants.depart(id, this.#tenants.dismiss(tenant, new PaddockError('gone', 'the sandbox has been ended')));
    await this.#kept.evict({ sandboxId: id });
  }

  checkpoint(id: SandboxId, options: CheckpointOptions, signal: AbortSignal): Promise<CheckpointRef> {
    const tenant = this.#tenants.get(id);
    this.#builds.assertSavable(id);
    return this.#tenants.inTurn(tenant, async () => {
      if (tenant.ended.aborted) throw new PaddockError('gone', 'the sandbox has ended');
      if (tenant.held !== null) throw new PaddockError('conflict', 'the sandbox is being paused');
      const ref = await this.#saving.save(tenant, options, AbortSignal.any([signal, this.#closing.signal]));
      if (options.hold) tenant.held = ref;
      return ref;
    });
  }

  proceed(id: SandboxId): Promise<void> {
    const tenant = this.#tenants.get(id);
    return this.#tenants.inTurn(tenant, () => this.#proceed(tenant));
  }

  async #proceed(tenant: Tenant): Promise<void> {
    if (tenant.held === null) return;
    await this.#saving.goOn(tenant);
    tenant.held = null;
  }

  async retire(id: SandboxId, checkpointId: string, error: PaddockError): Promise<void> {
    const tenant = this.#tenants.find(id);
    if (tenant === undefined) return this.#tenants.departed(id);
    const { slot, handle, held } = tenant;
    // One that does not stand still where its checkpoint left it is no use any more.
    if (held?.id !== checkpointId) return this.#tenants.depart(id, this.#tenants.dismiss(tenant, error));
    tenant.client.end(error);
    tenant.ending.abort(error);
    const keep = async (): Promise<void> => {
      await this.#egress.expel(slot.address);
      await this.#kept.keep({ sandboxId: id, checkpointId, slot, handle, memoryBytes: held.memoryBytes });
    };
    await this.#tenants.depart(id, keep());
  }

  async restore(spec: RestoreSpec, signal: AbortSignal): Promise<GuestRef> {
    const { checkpoint, identity, teamId, sameSandbox } = spec;
    const id = identity.sandboxId;
    await this.#tenants.departed(id).catch(() => undefined); // on its way into memory, perhaps
    const kept = sameSandbox ? this.#kept.take(checkpoint.id, id) : null;
    if (kept !== null) {
      try {
        return this.#tenants.settle(id, teamId, await this.#restoring.wake(kept, spec, signal), checkpoint.agentProtocol);
      } catch (reason) {
        if (signal.aborted) throw reason;
        this.#log.warn({ err: reason, sandbox: id }, 'a kept guest could not be woken; its checkpoint is used instead');
      }
    }
    const guest = await this.#restoring.fromDisk(spec, signal);
    const before = this.#tenants.find(id);
    const ref = this.#tenants.settle(id, teamId, guest, checkpoint.agentProtocol);
    try {
      if (before !== undefined) await this.#tenants.dismiss(before, new PaddockError('conflict', 'the sandbox was restored from a snapshot; what ran in it before has ended', { reason: 'restored' }));
      if (sameSandbox) await this.#kept.evict({ sandboxId: id });
    } catch (reason) {
      this.#log.error({ err: reason, sandbox: id }, 'a guest whose place another one has taken could not be cleaned up');
    }
    return ref;
  }

  async removeCheckpoint(checkpointId: string): Promise<void> {
    await this.#kept.evict({ checkpointId });
    await this.#openFiles.release(checkpointId, await this.#checkpoints.volumesOf(checkpointId));
    await this.#checkpoints.remove(checkpointId);
  }

  checkpoints(): Promise<readonly CheckpointRef[]> {
    return this.#checkpoints.list();
  }

  assertRoom(memoryBytes: number): Promise<void> {
    return this.#room.assert(memoryBytes);
  }

  importImage(request: ImageRequest, signal: AbortSignal): Promise<ImportedImage> {
    return this.#builds.importImage(request, signal);
  }

  knownLayers(ids: readonly LayerId[]): Promise<ReadonlySet<LayerId>> {
    return this.#builds.knownLayers(ids);
  }

  provisionStep(spec: StepSpec, signal: AbortSignal): Promise<GuestRef> {
    return this.#builds.provisionStep(spec, signal);
  }

  sealStep(id: SandboxId, signal: AbortSignal): Promise<LayerRef> {
    return this.#builds.sealStep(id, signal);
  }

  installTemplate(template: TemplateRoot): Promise<{ readonly digest: string; readonly sizeBytes: number }> {
    return this.#builds.installTemplate(template);
  }

  uninstallTemplate(digest: string): Promise<void> {
    return this.#builds.uninstallTemplate(digest);
  }

  installedTemplates(): Promise<readonly string[]> {
    return this.#builds.installedTemplates();
  }

  /** What of set-up's this host still needs. */
  artefactsInUse(): Promise<Needed> {
    return this.#builds.needed();
  }

  removeLayers(keep: ReadonlySet<LayerId>): Promise<number> {
    return this.#builds.removeLayers(keep);
  }

  onDeath(listener: (id: SandboxId, death: GuestDeath) => void): void {
    this.#deathListener = listener;
  }

  /** Lets go of the guests and leaves them running for the next start. */
  async close(): Promise<void> {
    if (this.#pulse !== null) clearInterval(this.#pulse);
    this.#closing.abort(new PaddockError('guest_unreachable', 'the server is stopping; the sandbox goes on'));
    for (const id of await this.#builds.close()) await this.destroy(id);
    await Promise.all(this.#tenants.all().map((tenant) => this.#leave(tenant)));
    await this.#kept.evictAll();
    await this.#checkpoints.close();
    this.#egress.close();
    await this.#guests.close();
    await this.#slots.close();
    await this.volumeDisks.close();
  }

  /** Ends every guest and removes everything that this instance ever made on the machine, the data directory's state excepted. */
  async teardown(): Promise<void> {
    await this.close();
    this.#tenants.forgetAll();
    await this.#sweep();
    await this.#egress.end();
    await removeGateway(this.#instance);
    await openCgroup(this.#instance.cgroup).remove();
    await unmountAt(this.#instance.slotsDir);
    await this.volumeDisks.end();
    await this.#builds.teardown();
    rmSync(join(this.#instance.dataDir, 'host'), { recursive: true, force: true });
  }

  /** Sees to it that a guest which is left alone runs. */
  async #leave(tenant: Tenant): Promise<void> {
    await tenant.turn;
    await this.#proceed(tenant).catch((reason: unknown) => this.#log.warn({ err: reason, container: tenant.handle.container }, 'a held guest could not be made to go on; the next start does it'));
    tenant.client.end(this.#closing.signal.reason as PaddockError);
  }

  #takePulse(): void {
    this.#kept.prune(() => this.#room.isTight());
    for (const [id, tenant] of this.#tenants.entries()) {
      if (!this.#runtime.isAlive(tenant.handle)) {
        this.#tenants.depart(id, this.#bury(id, tenant)).catch((reason: unknown) => this.#log.error({ err: reason, sandbox: id }, 'a dead guest could not be cleaned up'));
      }
    }
  }

  async #bury(id: SandboxId, tenant: Tenant): Promise<void> {
    const death = await this.#runtime.autopsy(tenant.handle.container, tenant.slot);
    const buried = this.#tenants.dismiss(tenant, new PaddockError('gone', `the sandbox has ended: ${death.reason}`, { reason: death.reason }));
    this.#deathListener(id, death);
    await buried;
  }
}

/** Opens this machine as a host. Nothing is changed on it before `recover` is called. */
export async function openHost(options: HostOptions): Promise<LocalHost> {
  const instance = await openInstance(options.dataDir, options.subnet);
  const runtime = await GvisorRuntime.open(instance, openArtefacts(options.artefactsDir));
  return new LocalHost(instance, runtime, loadTemplates(options.artefactsDir, options.buildTemplate), options);
}
