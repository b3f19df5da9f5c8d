import type { Clock } from '../clock.ts';
import { PaddockError } from '../errors.ts';
import type { EventLog } from '../events.ts';
import { newSecretId, type SecretId } from '../ids.ts';
import type { SecretRule } from '../network/inspection.ts';
import type { Principal } from '../principal.ts';
import type { CoreSettings } from '../settings.ts';
import type { Store } from '../store.ts';
import type { Arming } from './arming.ts';
import { invalid, shown } from './faults.ts';
import { assertEnvironmentName, assertSecretName, defaultEnvironment } from './names.ts';
import { assertRules } from './rules.ts';
import type { ListedUse, Secret, SecretUsage } from './secret.ts';
import type { SecretPage, SecretQuery, UseQuery } from './store.ts';
import { assertSecretValue } from './value.ts';

interface SecretsDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly events: EventLog;
  readonly settings: CoreSettings;
  readonly arming: Arming;
}

export interface NewSecret {
  readonly environment: string;
  readonly name: string;
  readonly value: string;
  /** Of the catalogue; null for rules of its owner's own. */
  readonly provider: string | null;
  readonly rules: readonly SecretRule[];
  readonly rotationIntervalDays: number | null;
}

const mostEnvironments = 50;
const longestIntervalDays = 3650;
const longestList = 10_000;

/** The secrets of teams. Their values go in here and come out at the egress proxy only. */
export class Secrets {
  readonly #deps: SecretsDeps;

  constructor(deps: SecretsDeps) {
    this.#deps = deps;
  }

  /** Throws `conflict` when the name is taken in the environment, `not_found` when there is no such environment. */
  async create(principal: Principal, input: NewSecret): Promise<Secret> {
    const { store, clock, events, settings } = this.#deps;
    const { environment, name, value, provider, rules, rotationIntervalDays } = input;
    assertSecretName(name);
    assertRules(rules, 'rules');
    assertSecretValue(value, rules);
    if (rotationIntervalDays !== null && (!Number.isInteger(rotationIntervalDays) || rotationIntervalDays < 1 || rotationIntervalDays > longestIntervalDays)) {
      throw invalid('rotation_interval_days', `must be a whole number from 1 to ${longestIntervalDays}, not ${rotationIntervalDays}`);
    }
    await this.assertEnvironment(principal, environment);
    const { total } = await store.secrets.list(principal.teamId, { limit: 1, offset: 0 });
    if (total >= settings.maxSecrets) throw new PaddockError('concurrency_limit', `there are ${total} secrets, and the limit is ${settings.maxSecrets}; delete some`, { reason: 'too_many_secrets' });
    const now = clock.now();
    const secret: Secret = Object.freeze({
      id: newSecretId(), teamId: principal.teamId, environment, name, provider, rules: Object.freeze([...rules]), createdAt: now, updatedAt: now, rotatedAt: null, rotationIntervalDays, lastUsedAt: null, deletedAt: null,
    });
    try {
      await store.secrets.insert(secret, value);
    } catch (error) {
      if (PaddockError.from(error).code !== 'conflict') throw error;
      throw new PaddockError('conflict', `there is a secret ${shown(name)} already in the environment ${shown(environment)}; rotate it, or delete it first`, {}, { cause: error });
    }
    events.ofTeam(principal.teamId, 'secret_created', { secretId: secret.id, secretName: name, environment }, 'security');
    return secret;
  }

  async list(principal: Principal, query: Partial<SecretQuery> = {}): Promise<SecretPage> {
    return this.#deps.store.secrets.list(principal.teamId, { limit: longestList, offset: 0, ...query });
  }

  async get(principal: Principal, id: SecretId): Promise<Secret> {
    const secret = await this.#deps.store.secrets.find(principal.teamId, id);
    if (secret === null) throw noSecret();
    return secret;
  }

  /** Throws `not_found`. */
  async named(principal: Principal, environment: string, name: string): Promise<Secret> {
    const secret = await this.#deps.store.secrets.findByName(principal.teamId, environment, name);
    if (secret === null) throw noSecret();
    return secret;
  }

  /** Throws `invalid_argument` (`secret_not_found`) unless all of them are there. */
  async assertNamed(principal: Principal, environment: string, names: readonly string[]): Promise<void> {
    for (const name of new Set(names)) {
      if ((await this.#deps.store.secrets.findByName(principal.teamId, environment, name)) === null) throw new PaddockError('invalid_argument', `there is no secret ${shown(name)}; store it first, or look at its name`, { reason: 'secret_not_found' });
    }
  }

  /** Gives it another value, which running sandboxes use from now on. */
  async rotate(principal: Principal, id: SecretId, value: string): Promise<Secret> {
    const before = await this.get(principal, id);
    assertSecretValue(value, before.rules);
    const rotated = await this.#deps.store.secrets.rotate(principal.teamId, id, value, this.#deps.clock.now());
    return this.#changed(principal, rotated, 'secret_rotated');
  }

  /** Says anew where it may go, also from running sandboxes. */
  async replaceRules(principal: Principal, id: SecretId, rules: readonly SecretRule[]): Promise<Secret> {
    assertRules(rules, 'scopes');
    await this.get(principal, id);
    const replaced = await this.#deps.store.secrets.replaceRules(principal.teamId, id, rules, this.#deps.clock.now());
    return this.#changed(principal, replaced, 'secret_rules_replaced');
  }

  /** Takes the value away for good, from running sandboxes too: their stand-ins are refused when this resolves. */
  async delete(principal: Principal, id: SecretId): Promise<void> {
    const secret = await this.get(principal, id);
    if (!(await this.#deps.store.secrets.delete(principal.teamId, id, this.#deps.clock.now()))) throw noSecret();
    await this.#changed(principal, secret, 'secret_deleted');
  }

  async #changed(principal: Principal, secret: Secret | null, event: string): Promise<Secret> {
    if (secret === null) throw noSecret();
    this.#deps.events.ofTeam(principal.teamId, event, { secretId: secret.id, secretName: secret.name, environment: secret.environment }, 'security');
    await this.#deps.arming.armAll(secret.id);
    return secret;
  }

  /** When the caller's team was made. */
  async teamMadeAt(principal: Principal): Promise<number> {
    return (await this.#deps.store.keys.createdAt(principal.teamId)) ?? 0;
  }

  /** `prod` is always among them. */
  async environments(principal: Principal): Promise<readonly string[]> {
    return [...new Set([defaultEnvironment, ...(await this.#deps.store.secrets.environments(principal.teamId))])];
  }

  /** Throws `conflict` when it is there. */
  async addEnvironment(principal: Principal, name: string): Promise<void> {
    assertEnvironmentName(name, 'name');
    const there = await this.environments(principal);
    if (there.includes(name)) throw new PaddockError('conflict', `there is an environment ${shown(name)} already`);
    if (there.length >= mostEnvironments) throw new PaddockError('concurrency_limit', `there are ${there.length} environments, and the limit is ${mostEnvironments}`, { reason: 'too_many_environments' });
    await this.#deps.store.secrets.addEnvironment(principal.teamId, name, this.#deps.clock.now());
  }

  async assertEnvironment(principal: Principal, name: string): Promise<void> {
    assertEnvironmentName(name);
    if (!(await this.environments(principal)).includes(name)) throw new PaddockError('not_found', `there is no environment ${shown(name)}; make it first`, { field: 'environment' });
  }

  /** Sandboxes that have it and have not ended. */
  usage(secret: Secret): Promise<readonly SecretUsage[]> {
    return this.#deps.store.secretBindings.usage(secret.teamId, secret.id);
  }

  /** Requests in which it played a part. Newest first. */
  uses(secret: Secret, query: UseQuery): Promise<readonly ListedUse[]> {
    return this.#deps.store.secretUses.list(secret.teamId, secret.id, query);
  }

  /** Whether its owner meant to have rotated it by now; null without such a wish. */
  rotationDue({ rotationIntervalDays, rotatedAt, createdAt }: Secret): boolean | null {
    return rotationIntervalDays === null ? null : (rotatedAt ?? createdAt) + rotationIntervalDays * 86_400_000 <= this.#deps.clock.now();
  }
}

function noSecret(): PaddockError {
  return new PaddockError('not_found', 'there is no such secret; it may have been deleted, or belong to another team');
}
