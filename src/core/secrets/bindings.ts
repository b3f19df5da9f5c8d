import { randomUUID } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { PaddockError } from '../errors.ts';
import type { EventLog } from '../events.ts';
import type { Unscanned } from '../guardrails/finding.ts';
import type { AuthorityId, SandboxId, SecretId, TeamId } from '../ids.ts';
import type { Inspection } from '../network/inspection.ts';
import type { Principal } from '../principal.ts';
import type { Sandbox } from '../sandbox.ts';
import type { Store } from '../store.ts';
import type { Authorities } from './authorities.ts';
import { invalid, shown } from './faults.ts';
import { assertVariableName } from './names.ts';
import type { Authority, Binding, OpenedSecret, Secret } from './secret.ts';
import { newStandIn, vaultManaged } from './stand-in.ts';

interface SecretBindingsDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly events: EventLog;
  readonly authorities: Authorities;
  readonly unscanned: Unscanned;
}

/** A secret that a sandbox is to have. */
export interface BindingRequest {
  readonly variable: string;
  readonly environment: string;
  readonly name: string;
  readonly when: Binding['when'];
}

/** The same with the secret found. */
export interface WantedSecret {
  readonly variable: string;
  readonly when: Binding['when'];
  readonly secret: Secret;
}

/** What a new sandbox brings with it, to be stored with its row. */
export interface Endowment {
  readonly authority: Authority;
  /** Whether the authority has no row yet. */
  readonly isNew: boolean;
  readonly bindings: readonly Binding[];
}

/** What a guest gets of all that: stand-ins and a certificate inside, the rest at the proxy. */
export interface Equipment {
  readonly env: Readonly<Record<string, string>>;
  /** PEM; null for a sandbox that has none yet. */
  readonly certificate: string | null;
  readonly inspection: Inspection | null;
  readonly secretIds: readonly SecretId[];
}

/** Whose state a new sandbox is made from. */
export interface Lineage {
  readonly sandboxId: SandboxId;
  readonly authorityId: AuthorityId | null;
  /** When that state was saved: what was bound later is not in its memory. */
  readonly savedAt: number;
  /** Variables that the new sandbox has otherwise. */
  readonly without: ReadonlySet<string>;
}

export const mostBindings = 32;
/** Stand-ins that came down from sandboxes before; beyond it the oldest are unknown, and worth nothing. */
const mostInherited = 128;
/** Stand-ins that were taken away and are still told apart from unknown texts. */
const mostDetached = 64;

/** Which sandbox has which secrets, and what follows from it for guest and proxy. */
export class SecretBindings {
  readonly #deps: SecretBindingsDeps;

  constructor(deps: SecretBindingsDeps) {
    this.#deps = deps;
  }

  /** The secrets that a create names. Throws `invalid_argument` (`secret_not_found`) for one that the team has not. */
  async wanted(principal: Principal, requests: readonly BindingRequest[], envs: Readonly<Record<string, string>>, field: string): Promise<readonly WantedSecret[]> {
    if (requests.length > mostBindings) throw invalid(field, `has ${requests.length} entries; the limit is ${mostBindings}`);
    for (const { variable } of requests) {
      assertVariableName(variable, field);
      if (Object.hasOwn(envs, variable)) throw invalid(field, `has ${shown(variable)}, which is also an environment variable of the request; a variable has one source`);
    }
    return Promise.all(requests.map(async ({ variable, when, environment, name }) => ({ variable, when, secret: await this.named(principal.teamId, environment, name) })));
  }

  async named(teamId: TeamId, environment: string, name: string): Promise<Secret> {
    const secret = await this.#deps.store.secrets.findByName(teamId, environment, name);
    if (secret === null) throw new PaddockError('invalid_argument', `there is no secret ${shown(name)} in the environment ${shown(environment)}; store it first, or look at its name`, { reason: 'secret_not_found' });
    return secret;
  }

  binding(sandboxId: SandboxId, { variable, when, secret }: WantedSecret): Binding {
    return Object.freeze({
      id: randomUUID(),
      teamId: secret.teamId,
      sandboxId,
      secretId: secret.id,
      variable,
      standIn: when === 'always' ? vaultManaged : newStandIn(secret.provider),
      when,
      inherited: false,
      createdAt: this.#deps.clock.now(),
      detachedAt: null,
    });
  }

  async endow(sandboxId: SandboxId, teamId: TeamId, wanted: readonly WantedSecret[], lineage: Lineage | null): Promise<Endowment> {
    const asked = wanted.map((each) => this.binding(sandboxId, each));
    const known = await this.#authority(teamId, lineage?.authorityId ?? null);
    const inherited = lineage === null ? [] : await this.#inherit(sandboxId, teamId, lineage, new Set(wanted.map(({ variable }) => variable)));
    return { authority: known ?? (await this.#deps.authorities.take()), isNew: known === null, bindings: [...inherited, ...asked] };
  }

  /**
   * Programs that run on have the stand-ins of the sandbox they come from: those count in the copy too, by rows of its own. Processes started
   * from now on get fresh ones.
   */
  async #inherit(sandboxId: SandboxId, teamId: TeamId, { sandboxId: source, savedAt, without }: Lineage, asked: ReadonlySet<string>): Promise<readonly Binding[]> {
    const { bindings } = await this.#deps.store.secretBindings.ofSandbox(source);
    const kept = bindings.filter((each) => each.teamId === teamId && each.detachedAt === null && each.createdAt <= savedAt && !without.has(each.variable) && !asked.has(each.variable));
    const opened = await this.#deps.store.secrets.open(teamId, kept.map(({ secretId }) => secretId));
    const now = this.#deps.clock.now();
    const copied = (each: Binding, changes: Partial<Binding>): Binding => Object.freeze({ ...each, id: randomUUID(), sandboxId, createdAt: now, ...changes });
    const inherited = kept.filter(({ inherited: came, when }) => came || when === 'stand-in').map((each) => copied(each, { inherited: true }));
    const fresh = kept.filter((each) => !each.inherited).map((each) => copied(each, each.when === 'always' ? {} : { standIn: newStandIn(opened.get(each.secretId)?.secret.provider ?? null) }));
    return [...inherited.slice(-mostInherited), ...fresh];
  }

  /** What a sandbox has today. A row that was altered is left out, and told; it keeps no other from working. */
  async of(sandbox: Pick<Sandbox, 'id' | 'teamId' | 'policy' | 'authorityId'>): Promise<Equipment> {
    const [{ bindings, altered }, authority] = await Promise.all([this.#deps.store.secretBindings.ofSandbox(sandbox.id), this.#authority(sandbox.teamId, sandbox.authorityId)]);
    if (altered > 0) this.#deps.events.ofSandbox(sandbox, 'admin', 'secret_unreadable_failed', { message: `${altered} bindings of secrets were altered in the database, and are refused` });
    return this.equip(sandbox, authority, bindings);
  }

  async equip(sandbox: Pick<Sandbox, 'id' | 'teamId' | 'policy'>, authority: Authority | null, bindings: readonly Binding[]): Promise<Equipment> {
    const env = Object.fromEntries(bindings.filter(({ inherited, detachedAt }) => !inherited && detachedAt === null).map(({ variable, standIn }) => [variable, standIn]));
    const certificate = authority?.certificate ?? null;
    const guardrails = sandbox.policy.guardrails ?? null;
    if (bindings.length === 0 && guardrails === null) return { env, certificate, inspection: null, secretIds: [] };
    const secretIds = [...new Set(bindings.map(({ secretId }) => secretId))];
    const opened = await this.#deps.store.secrets.open(sandbox.teamId, secretIds);
    for (const { secret, fault } of opened.values()) {
      if (fault !== null) this.#deps.events.ofSandbox(sandbox, 'admin', 'secret_unreadable_failed', { secretId: secret.id, secretName: secret.name, message: fault });
    }
    return { env, certificate, inspection: authority === null && guardrails === null ? null : { ...inspectionOf(authority, bindings, opened), guardrails, unscanned: this.#deps.unscanned }, secretIds };
  }

  /** Null when there is none, or one that cannot be opened, which is told: nothing is looked into then: no secret is put in anywhere, and a sandbox with guardrails reaches nothing. */
  async #authority(teamId: TeamId, id: AuthorityId | null): Promise<Authority | null> {
    if (id === null) return null;
    try {
      return await this.#deps.store.authorities.find(id);
    } catch (error) {
      this.#deps.events.ofTeam(teamId, 'authority_unreadable_failed', { authorityId: id, message: PaddockError.from(error).message });
      return null;
    }
  }

  /** A sandbox of an earlier version gets an authority when it gets its first secret. */
  async newAuthority(): Promise<Authority> {
    const authority = await this.#deps.authorities.take();
    await this.#deps.store.authorities.insert(authority);
    return authority;
  }
}

/** Newest first: of several with the same stand-in the one in force counts. */
function inspectionOf(authority: Authority | null, bindings: readonly Binding[], opened: ReadonlyMap<SecretId, OpenedSecret>): Pick<Inspection, 'authority' | 'secrets'> {
  const live = bindings.filter(({ detachedAt }) => detachedAt === null);
  const detached = bindings.filter(({ detachedAt }) => detachedAt !== null).slice(-mostDetached);
  return {
    authority: authority === null ? null : { certificate: authority.certificate, privateKey: authority.privateKey },
    secrets: [...detached, ...live].toReversed().map(({ id, secretId, standIn, when, detachedAt }) => {
      const found = opened.get(secretId);
      return {
        id,
        secretName: found?.secret.name ?? 'unknown',
        standIn,
        value: detachedAt === null ? (found?.value ?? null) : null,
        rules: (found?.secret.rules ?? []).map((rule) => ({ ...rule, when })),
      };
    }),
  };
}
