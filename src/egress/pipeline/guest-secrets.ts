import type { SecretBinding, SecretRule } from '../../core/network/inspection.ts';
import { patternMatches } from '../../core/network/patterns.ts';
import { ruleForHost } from '../../core/secrets/matching.ts';
import { shortestPattern } from './matcher.ts';
import { Needles, type Needle } from './needles.ts';

const mostBindings = 256;

/** The secrets of one sandbox as its requests meet them: replaced as a whole when one of them changes. */
export class GuestSecrets {
  readonly bindings: readonly SecretBinding[];
  #standIns: Needles<SecretBinding> | null = null;
  #values: Needles<SecretBinding> | null = null;

  /** @throws Error, without anything secret in it, for a binding that must not be used. */
  constructor(bindings: readonly SecretBinding[]) {
    if (!Array.isArray(bindings) || bindings.length > mostBindings) throw new Error(`The entry has no list of at most ${mostBindings} secrets.`);
    bindings.forEach(assertBinding);
    this.bindings = bindings;
  }

  /** Whether stand-ins have to be looked for in everything that the sandbox sends. */
  get hasStandIns(): boolean {
    return this.bindings.some(hasStandIn);
  }

  /** Whether some secret belongs to this host, in whatever requests. */
  concerns(host: string | null): boolean {
    return host !== null && this.bindings.some((binding) => ruleFor(binding, host) !== null);
  }

  /** What must not be anywhere but in its place. */
  get standIns(): Needles<SecretBinding> {
    this.#standIns ??= new Needles(this.bindings.filter(hasStandIn).map((binding) => ({ owner: binding, text: binding.standIn, replacement: '[stand-in]' })));
    return this.#standIns;
  }

  /** What must not come back. */
  get values(): Needles<SecretBinding> {
    this.#values ??= new Needles(this.bindings.filter(({ value }) => value !== null && value.length >= shortestPattern).map(needleOf));
    return this.#values;
  }
}

/** The rule that applies to a host: the first one that matches it. */
export function ruleFor(binding: SecretBinding, host: string): SecretRule | null {
  return ruleForHost(binding.rules, host) ?? null;
}

function hasStandIn(binding: SecretBinding): boolean {
  return binding.rules.some((rule) => rule.when === 'stand-in');
}

function needleOf(binding: SecretBinding): Needle<SecretBinding> {
  const value = binding.value ?? '';
  const users = binding.rules.flatMap(({ place }) => (place.kind === 'basic' ? [place.username ?? 'x'] : []));
  const wholes = [value, ...users.map((user) => `${user}:${value}`)].map((whole) => Buffer.from(whole).toString('base64'));
  return { owner: binding, text: value, besides: wholes, replacement: binding.standIn };
}

/** What is not a secret as this process knows them is refused as a whole: a value with a line break would write headers of its own. */
function assertBinding(binding: SecretBinding, index: number): void {
  const fault = (why: string): Error => new Error(`Secret ${index} of the entry ${why}.`);
  if (typeof binding?.id !== 'string' || typeof binding.secretName !== 'string') throw fault('has no id or name');
  if (binding.value !== null && (typeof binding.value !== 'string' || !isHeaderText(binding.value))) throw fault('has a value that cannot stand in a header');
  if (typeof binding.standIn !== 'string' || !/^[!-~]{8,512}$/.test(binding.standIn)) throw fault('has a stand-in that is not 8 to 512 visible characters');
  if (!Array.isArray(binding.rules)) throw fault('has no rules');
  for (const rule of binding.rules) {
    if (!['stand-in', 'always'].includes(rule.when)) throw fault('has a rule for an unknown occasion');
    if (!Array.isArray(rule.hosts) || rule.hosts.length === 0 || !Array.isArray(rule.methods) || !Array.isArray(rule.paths)) throw fault('has a rule without hosts, methods or paths');
    for (const host of rule.hosts) {
      if (!['name', 'one-level', 'regex'].includes(host.kind)) throw fault('has a host of an unknown kind');
      // Each pattern is compiled now: later nobody could answer for it.
      if (host.kind === 'regex') patternMatches(host, 'example.com');
    }
    if (!['bearer', 'basic', 'header', 'headers', 'query'].includes(rule.place?.kind)) throw fault('belongs in a place of an unknown kind');
    const headers = [...Object.entries(rule.extraHeaders), ...(rule.place.kind === 'headers' ? Object.entries(rule.place.headers) : []), ...(rule.place.kind === 'header' ? [[rule.place.name, rule.place.prefix] as const] : [])];
    for (const [name, text] of headers) if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/.test(name) || !isHeaderText(text) || framing.has(name.toLowerCase())) throw fault('sets a header that cannot be set');
  }
}

const framing = new Set(['host', 'content-length', 'transfer-encoding', 'connection', 'upgrade', 'te', 'trailer', 'keep-alive', 'proxy-connection']);

function isHeaderText(text: unknown): text is string {
  return typeof text === 'string' && /^[\t\u0020-\u007E\u0080-\uD7FF\uE000-\uFFFF]*$/.test(text) && Buffer.byteLength(text) <= 16_384;
}
