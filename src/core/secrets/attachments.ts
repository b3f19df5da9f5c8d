import type { Clock } from '../clock.ts';
import { unusable } from '../ended.ts';
import { PaddockError } from '../errors.ts';
import type { EventLog } from '../events.ts';
import type { SandboxRef } from '../ids.ts';
import { canonicalName } from '../network/names.ts';
import { explain } from '../network/target.ts';
import type { Principal } from '../principal.ts';
import type { Sandbox } from '../sandbox.ts';
import type { Store } from '../store.ts';
import type { Arming } from './arming.ts';
import { mostBindings, type BindingRequest, type SecretBindings } from './bindings.ts';
import { invalid, shown } from './faults.ts';
import { applicability, type RefusalCode } from './matching.ts';
import { assertVariableName } from './names.ts';
import type { NamedBinding } from './secret.ts';

interface AttachmentsDeps {
  readonly store: Store;
  readonly clock: Clock;
  readonly events: EventLog;
  readonly bindings: SecretBindings;
  readonly arming: Arming;
  readonly find: (principal: Principal, ref: SandboxRef) => Promise<Sandbox>;
}

/** What would become of a secret in a request. */
export interface SecretCheck {
  readonly works: boolean;
  /** Stable name of why not; null when it works. */
  readonly code: RefusalCode | 'not_bound' | 'network_rules' | null;
  /** One sentence: why not, or where the secret goes. */
  readonly reason: string;
}

/** Secrets of sandboxes that run: given, taken away, and asked about. */
export class SecretAttachments {
  readonly #deps: AttachmentsDeps;

  constructor(deps: AttachmentsDeps) {
    this.#deps = deps;
  }

  /** By variable; also of a sandbox that has ended. */
  async list(sandbox: Pick<Sandbox, 'id'>): Promise<readonly NamedBinding[]> {
    return this.#deps.store.secretBindings.list(sandbox.id);
  }

  /** In force, and in the environment of processes started afterwards, when this resolves. Throws `conflict` when the variable is taken or the sandbox does not run. */
  async attach(principal: Principal, ref: SandboxRef, request: BindingRequest): Promise<void> {
    const { store, bindings, arming, events, find } = this.#deps;
    const { variable, environment, name, when } = request;
    assertVariableName(variable, 'env_key');
    const sandbox = await find(principal, ref);
    const reason = unusable(sandbox);
    if (reason !== null) throw reason;
    const secret = await bindings.named(principal.teamId, environment, name);
    const there = await store.secretBindings.list(sandbox.id);
    if (there.some((each) => each.variable === variable)) throw new PaddockError('conflict', `${variable} holds a secret already; detach that one first`);
    if (Object.hasOwn(sandbox.envs, variable)) throw new PaddockError('conflict', `${variable} is an environment variable that the sandbox was created with; choose another name`);
    if (there.length >= mostBindings) throw invalid('env_key', `is one too many: the sandbox has ${there.length} secrets, and the limit is ${mostBindings}`);
    await this.#ensureAuthority(sandbox);
    const binding = bindings.binding(sandbox.id, { variable, when, secret });
    await store.secretBindings.insert(binding);
    try {
      await arming.arm(sandbox.id, true);
    } catch (error) {
      await store.secretBindings.remove(binding.id);
      await arming.arm(sandbox.id, true).catch(() => undefined); // tried again by itself
      throw error;
    }
    events.ofSandbox(sandbox, 'security', 'secret_attached', { variable, secretId: secret.id, secretName: name });
  }

  /** The stand-in is refused when this resolves. Throws `not_found` when the variable holds no secret. */
  async detach(principal: Principal, ref: SandboxRef, variable: string): Promise<void> {
    const { store, arming, events, clock, find } = this.#deps;
    const sandbox = await find(principal, ref);
    if (sandbox.end !== null) throw unusable(sandbox) ?? new PaddockError('gone', 'the sandbox has ended');
    if (!(await store.secretBindings.detach(sandbox.id, variable, clock.now()))) throw new PaddockError('not_found', `${shown(variable)} holds no secret in this sandbox`);
    events.ofSandbox(sandbox, 'security', 'secret_detached', { variable });
    await arming.arm(sandbox.id);
    await arming.arm(sandbox.id, true).catch(() => undefined); // the variable is worth nothing by now; it goes by and by
  }

  /** Asks the same code as the proxy whether the secret in a variable would be put into a request to `url`. Sends nothing. */
  async check(principal: Principal, ref: SandboxRef, variable: string, url: string, method: string): Promise<SecretCheck> {
    const sandbox = await this.#deps.find(principal, ref);
    const target = targetOf(url, method);
    const bound = (await this.#deps.store.secretBindings.list(sandbox.id)).find((each) => each.variable === variable);
    if (bound === undefined) return { works: false, code: 'not_bound', reason: `${shown(variable)} holds no secret in this sandbox.` };
    const { verdict } = explain(sandbox.policy.network, url);
    if (!verdict.allowed) return { works: false, code: 'network_rules', reason: verdict.reason };
    const opened = (await this.#deps.store.secrets.open(sandbox.teamId, [bound.secretId])).get(bound.secretId);
    const found = applicability({ secretName: bound.secretName, value: opened?.value ?? null, rules: opened?.secret.rules ?? [] }, target);
    if (!found.applies) return { works: false, code: found.code, reason: found.reason };
    const { place } = found.rule;
    const where = place.kind === 'query' ? `the query parameter ${place.name}` : place.kind === 'header' ? `the header ${place.name}` : place.kind === 'headers' ? `the headers ${Object.keys(place.headers).join(', ')}` : 'the header authorization';
    return { works: true, code: null, reason: bound.when === 'always' ? `The secret ${bound.secretName} is put into ${where}.` : `The secret ${bound.secretName} replaces the stand-in in ${where}.` };
  }

  async #ensureAuthority(sandbox: Sandbox): Promise<void> {
    if (sandbox.authorityId !== null) return;
    const { id: authorityId } = await this.#deps.bindings.newAuthority();
    await this.#deps.store.sandboxes.transition(sandbox.id, [sandbox.state], sandbox.state, { authorityId });
  }
}

function targetOf(url: string, method: string): { secure: boolean; host: string; method: string; path: string } {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  const host = parsed === null || !['http:', 'https:'].includes(parsed.protocol) ? null : canonicalName(parsed.hostname);
  if (parsed === null || host === null) throw invalid('url', `must be a URL with a host name, http or https, but is ${shown(url)}`);
  if (!/^[A-Za-z]{1,32}$/.test(method)) throw invalid('method', `must be a method of HTTP, but is ${shown(method)}`);
  return { secure: parsed.protocol === 'https:', host, method: method.toUpperCase(), path: parsed.pathname };
}
