import { abandoned } from './abandoned.ts';
import type { Admission } from './admission.ts';
import type { Birth, Births } from './births.ts';
import type { Clock } from './clock.ts';
import { assertCreatable, type CreateSandbox } from './create-input.ts';
import type { Deadlines } from './deadlines.ts';
import type { Endings } from './endings.ts';
import { PaddockError } from './errors.ts';
import type { EventLog } from './events.ts';
import type { Expiry } from './expiry.ts';
import type { GuestRef, GuestSpec, Host, Lap, VolumeMount } from './host.ts';
import type { Identities } from './identity.ts';
import { newSandboxId, newShortId } from './ids.ts';
import { enforcedPolicy, withVolumes } from './policy.ts';
import type { Principal } from './principal.ts';
import { unborn, type Sandbox } from './sandbox.ts';
import type { CoreSettings } from './settings.ts';
import type { Store } from './store.ts';
import type { Arming } from './secrets/arming.ts';
import type { Endowment, Equipment, SecretBindings, WantedSecret } from './secrets/bindings.ts';
import type { Template } from './template.ts';
import type { Chosen, TemplateShelf } from './templates/shelf.ts';
import type { Tokens } from './tokens.ts';
import type { VolumeAttachments } from './volume-attachments.ts';

export interface CreationDeps {
  readonly store: Store;
  readonly host: Host;
  readonly shelf: TemplateShelf;
  readonly tokens: Tokens;
  readonly clock: Clock;
  readonly identities: Identities;
  readonly settings: CoreSettings;
  readonly events: EventLog;
  readonly admission: Admission;
  readonly births: Births;
  readonly endings: Endings;
  readonly deadlines: Deadlines;
  readonly expiry: Expiry;
  readonly volumes: VolumeAttachments;
  readonly bindings: SecretBindings;
  readonly arming: Arming;
}

/** A sandbox that is being created, and what it brings. */
export interface Newborn {
  readonly sandbox: Sandbox;
  readonly endowment: Endowment;
}

/** Makes the guest of a sandbox that is being created: by booting one, or from what was saved of another. */
export type GuestMaker = (unborn: Sandbox, equipment: Equipment, signal: AbortSignal) => Promise<GuestRef>;

const undoAgainAfterMs = 5000;

/** Creates sandboxes: all of it or nothing. */
export class Creation {
  readonly #deps: CreationDeps;

  constructor(deps: CreationDeps) {
    this.#deps = deps;
  }

  async create(principal: Principal, input: CreateSandbox, signal: AbortSignal): Promise<Sandbox> {
    const { settings, shelf, bindings } = this.#deps;
    assertCreatable(input, settings);
    const wanted = await bindings.wanted(principal, input.secrets?.bindings ?? [], input.envs, input.secrets?.field ?? 'secrets');
    using chosen = await shelf.choose(principal.teamId, input.templateName, settings);
    const { fill, mounts } = await this.#deps.volumes.prepare(principal, input.policy?.volumes ?? []);
    const boot: GuestMaker = async (unborn, equipment, aborted) => {
      await input.born?.(unborn.id);
      const guest = await this.#guestOf(unborn, equipment, chosen, aborted, input.lap);
      if (fill === null) return guest;
      await fill(this.#deps.host.guest(unborn.id).files, aborted);
      input.lap?.('copy');
      return guest;
    };
    return await this.bear(() => this.#unborn(principal, input, chosen, wanted, mounts), boot, signal, input.lap);
  }

  /** Makes a sandbox that `unborn` describes, with the guest that `make` makes. */
  async bear(unborn: () => Promise<Newborn>, make: GuestMaker, signal: AbortSignal, lap?: Lap): Promise<Sandbox> {
    // A short id that is taken is a matter of one in millions, and of another try.
    for (let attempt = 0; attempt < 3; attempt++) {
      const sandbox = await this.#attempt(await unborn(), make, signal, lap);
      if (sandbox !== null) return sandbox;
    }
    throw new PaddockError('internal', 'no free short id was found; try again');
  }

  async #unborn(principal: Principal, input: CreateSandbox, chosen: Chosen, wanted: readonly WantedSecret[], mounts: readonly VolumeMount[]): Promise<Newborn> {
    const id = newSandboxId();
    const endowment = await this.#deps.bindings.endow(id, principal.teamId, wanted, null);
    const sandbox: Sandbox = Object.freeze({
      ...unborn,
      id,
      shortId: newShortId(),
      teamId: principal.teamId,
      wire: input.wire,
      name: input.name ?? '',
      template: chosen.named,
      limits: chosen.template.limits,
      defaultUser: chosen.user ?? input.defaultUser,
      metadata: input.metadata,
      envs: input.envs,
      lifecycle: input.lifecycle,
      declared: input.declared,
      policy: withVolumes(enforcedPolicy(input.policy ?? {}), mounts),
      timeoutSeconds: input.timeoutSeconds,
      createdAt: this.#deps.clock.now(),
      sourceSnapshotId: null,
      authorityId: endowment.authority.id,
    });
    return { sandbox, endowment };
  }

  /** Null when the short id is taken. */
  async #attempt(newborn: Newborn, make: GuestMaker, caller: AbortSignal, lap?: Lap): Promise<Sandbox | null> {
    const { admission, births, expiry, events, arming } = this.#deps;
    const { sandbox: unborn, endowment } = newborn;
    if (caller.aborted) throw abandoned(caller);
    admission.enter(unborn.id);
    const birth = births.begin(unborn.id);
    try {
      const secretIds = endowment.bindings.map(({ secretId }) => secretId);
      const guest = await arming.during(unborn.id, secretIds, () => this.#bear(newborn, make, birth, caller));
      const sandbox = await this.#run(unborn, guest, birth, caller);
      lap?.('store');
      this.#deps.volumes.began(sandbox);
      expiry.watch(sandbox);
      events.ofSandbox(sandbox, 'lifecycle', 'created', {
        template: sandbox.template.name,
        wire: sandbox.wire,
        timeoutSeconds: sandbox.timeoutSeconds,
        durationMs: this.#deps.clock.now() - unborn.createdAt,
      });
      return sandbox;
    } catch (thrown) {
      const { shortIdTaken, error } = thrown instanceof ShortIdTaken ? { shortIdTaken: true, error: null } : { shortIdTaken: false, error: causeOf(thrown, birth, caller) };
      await this.undo(unborn);
      if (shortIdTaken || error === null) return null;
      events.ofSandbox(unborn, 'lifecycle', 'create_failed', { code: error.code, message: error.message });
      throw error;
    } finally {
      birth.over();
    }
  }

  /** The row is written while the host provides the guest: one hides the time of the other. */
  async #bear({ sandbox: unborn, endowment }: Newborn, make: GuestMaker, birth: Birth, caller: AbortSignal): Promise<GuestRef> {
    const { store, bindings } = this.#deps;
    const notStored = new AbortController();
    const signal = AbortSignal.any([caller, birth.signal, notStored.signal]);
    const provisioning = (async () => make(unborn, await bindings.equip(unborn, endowment.authority, endowment.bindings), signal))();
    const inserting = store.sandboxes.insert(unborn, { authority: endowment.isNew ? endowment.authority : null, bindings: endowment.bindings }).catch((error: unknown) => {
      notStored.abort(error);
      throw error;
    });
    const [inserted, provisioned] = await Promise.allSettled([inserting, provisioning]);
    birth.provisioned();
    if (inserted.status === 'rejected') {
      if (inserted.reason instanceof PaddockError && inserted.reason.code === 'conflict') throw new ShortIdTaken();
      throw inserted.reason;
    }
    if (provisioned.status === 'rejected') throw provisioned.reason;
    signal.throwIfAborted();
    return provisioned.value;
  }

  async #run(unborn: Sandbox, guest: GuestRef, birth: Birth, caller: AbortSignal): Promise<Sandbox> {
    const { store, clock } = this.#deps;
    const signal = AbortSignal.any([caller, birth.signal]);
    const startedAt = clock.now();
    const endAt = unborn.timeoutSeconds === 0 ? null : startedAt + unborn.timeoutSeconds * 1000;
    const running = await store.sandboxes.transition(unborn.id, ['creating'], 'running', { guest, startedAt, periodStartedAt: startedAt, endAt });
    // Killed or died in the very moment: the signal knows which.
    signal.throwIfAborted();
    if (running === null) throw new PaddockError('conflict', 'the sandbox was ended while it was being created');
    return running;
  }

  /** An empty guest, or the one in which the template's start command runs. */
  async #guestOf(unborn: Sandbox, equipment: Equipment, { template, start }: Chosen, signal: AbortSignal, lap?: Lap): Promise<GuestRef> {
    const { host, tokens } = this.#deps;
    const spec = this.#specOf(unborn, equipment, template, lap);
    if (start === null) return host.provision(spec, signal);
    const { checkpoint, sandboxId } = start;
    await host.assertRoom(checkpoint.memoryBytes);
    const { template: _booted, ...rest } = spec;
    return host.restore({ ...rest, checkpoint, savedToken: tokens.agent({ id: sandboxId, generation: 1 }), sameSandbox: false, attachesVolumes: true }, signal);
  }

  #specOf(unborn: Sandbox, equipment: Equipment, template: Template, lap?: Lap): GuestSpec {
    return {
      template,
      limits: unborn.limits,
      teamId: unborn.teamId,
      network: unborn.policy.network,
      inspection: equipment.inspection,
      volumes: unborn.policy.volumes ?? [],
      ...(lap === undefined ? {} : { lap }),
      identity: this.#deps.identities.of(unborn, equipment),
    };
  }

  /** Guest first, row second: a crash in between leaves a row that the next start removes. Never rejects: what fails is tried again. */
  async undo(unborn: Sandbox): Promise<void> {
    const { admission, deadlines, endings, events, store, clock } = this.#deps;
    try {
      await endings.destroyGuest(unborn.id);
      if (!(await store.sandboxes.remove(unborn.id))) {
        const row = await store.sandboxes.find(unborn.teamId, { id: unborn.id });
        // Somebody killed it meanwhile; the tombstone is theirs.
        if (row?.state === 'killing') await endings.finish(row);
      }
      admission.leave(unborn.id);
    } catch (error) {
      events.ofSandbox(unborn, 'lifecycle', 'undo_failed', { message: PaddockError.from(error).message });
      deadlines.arm(`undo ${unborn.id}`, clock.now() + undoAgainAfterMs, () => void this.undo(unborn));
    }
  }
}

class ShortIdTaken extends Error {}

/** What made a create fail: its end or its caller's leaving say more than what the host makes of the abort. */
function causeOf(thrown: unknown, birth: Birth, caller: AbortSignal): PaddockError {
  if (birth.signal.aborted) return PaddockError.from(birth.signal.reason);
  if (caller.aborted) return abandoned(caller);
  return PaddockError.from(thrown);
}
