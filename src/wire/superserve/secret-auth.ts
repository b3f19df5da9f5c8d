import { Type, type Static } from 'typebox';
import type { SecretHost, SecretPlace, SecretRule } from '../../core/network/inspection.ts';
import { parseHostPattern } from '../../core/secrets/hosts.ts';
import { secretHostMatches } from '../../core/secrets/matching.ts';
import { mostHosts, mostRules, placeholder, secretRule } from '../../core/secrets/rules.ts';
import { optional, strict, StringMap, type Present } from './body.ts';
import { badRequest } from './errors.ts';

const ruleFields = { type: optional(Type.String()), header: optional(Type.String()), prefix: optional(Type.String()), username: optional(Type.String()), headers: optional(StringMap) };

/** How a secret is put into requests, in the words of this wire (contract, section 11.1). */
export const Auth = strict({ ...ruleFields, per_host: optional(Type.Array(strict({ ...ruleFields, hosts: optional(Type.Array(Type.String())) }))) });
export type AuthBody = Present<Static<typeof Auth>>;
type RuleBody = { readonly type?: string | null; readonly header?: string | null; readonly prefix?: string | null; readonly username?: string | null; readonly headers?: Readonly<Record<string, string>> | null };

/**
 * The rules of a secret with these hosts.
 *
 * @throws PaddockError `invalid_argument` naming field and limit.
 */
export function readAuth(auth: AuthBody, hostTexts: readonly string[]): readonly SecretRule[] {
  const hosts = readHosts(hostTexts, 'hosts');
  const { per_host: perHost, ...single } = auth;
  if (perHost == null) return [ruleOf(single, hosts, 'auth')];
  const extra = Object.keys(single).find((key) => single[key as keyof typeof single] != null);
  if (extra !== undefined) throw badRequest(`auth.${extra}`, 'and auth.per_host exclude each other: give one rule, or one for each host');
  if (perHost.length < 1 || perHost.length > mostRules) throw badRequest('auth.per_host', `must have 1 to ${mostRules} rules, but has ${perHost.length}`);
  const rules = perHost.map((rule, i) => {
    const field = `auth.per_host[${i}]`;
    const own = readHosts(rule.hosts ?? [], `${field}.hosts`);
    const loose = own.find((host) => !hosts.some((each) => covers(each, host)));
    if (loose !== undefined) throw badRequest(`${field}.hosts`, `has ${loose.text}, which is not among hosts`);
    return ruleOf(rule, own, field);
  });
  for (const [i, rule] of rules.entries()) {
    const twice = rule.hosts.find((host) => rules.slice(0, i).some((earlier) => earlier.hosts.some((other) => covers(other, host) || covers(host, other))));
    if (twice !== undefined) throw badRequest(`auth.per_host[${i}].hosts`, `has ${twice.text}, which overlaps with a rule before it`);
  }
  const idle = hosts.find((host) => !rules.some((rule) => rule.hosts.some((each) => covers(each, host) || covers(host, each))));
  if (idle !== undefined) throw badRequest('hosts', `has ${idle.text}, for which auth.per_host has no rule`);
  return rules;
}

function readHosts(texts: readonly string[], field: string): readonly SecretHost[] {
  if (texts.length < 1 || texts.length > mostHosts) throw badRequest(field, `must have 1 to ${mostHosts} hosts, but has ${texts.length}`);
  return texts.map((text, i) => parseHostPattern(text, `${field}[${i}]`));
}

function covers(host: SecretHost, other: SecretHost): boolean {
  if (other.kind === 'name') return secretHostMatches(host, other.name);
  return host.kind === 'one-level' && other.kind === 'one-level' && host.suffix === other.suffix;
}

function ruleOf(body: RuleBody, hosts: readonly SecretHost[], field: string): SecretRule {
  return secretRule(
    { hosts, place: placeOf(body, field) },
    { hosts: `${field}.hosts`, header: `${field}.header`, prefix: `${field}.prefix`, username: `${field}.username`, headers: `${field}.headers`, query: field },
  );
}

const fieldsOf = { bearer: [], basic: ['username'], 'api-key': ['header', 'prefix'], custom: ['headers'] } as const;

function placeOf(body: RuleBody, field: string): SecretPlace {
  const { type, header, prefix, username, headers } = body;
  if (type !== 'bearer' && type !== 'basic' && type !== 'api-key' && type !== 'custom') throw badRequest(`${field}.type`, `must be one of ${Object.keys(fieldsOf).join(', ')}${type == null ? '' : `, but is "${type.slice(0, 40)}"`}`);
  const foreign = (['header', 'prefix', 'username', 'headers'] as const).find((each) => body[each] != null && !(fieldsOf[type] as readonly string[]).includes(each));
  if (foreign !== undefined) throw badRequest(`${field}.${foreign}`, `says nothing with type ${type}; leave it out`);
  switch (type) {
    case 'bearer':
      return { kind: 'bearer' };
    case 'basic':
      return { kind: 'basic', username: username ?? null };
    case 'api-key':
      if (!header) throw badRequest(`${field}.header`, 'is required with type api-key');
      return { kind: 'header', name: header, prefix: prefix ?? '' };
    case 'custom':
      return { kind: 'headers', headers: headers ?? {} };
  }
}

/** The same the other way, also for secrets of another wire: a query parameter, which this wire has no word for, is shown as `custom`. */
export function presentAuth(rules: readonly SecretRule[]): { readonly auth_type: string; readonly auth_config: object; readonly hosts: readonly string[] } {
  const hosts = [...new Set(rules.flatMap((rule) => rule.hosts.map(hostText)))];
  const [only] = rules;
  if (rules.length === 1 && only !== undefined) {
    const { type, ...config } = presentPlace(only.place);
    return { auth_type: type, auth_config: config, hosts };
  }
  return { auth_type: 'per_host', auth_config: { per_host: rules.map((rule) => ({ hosts: rule.hosts.map(hostText), ...presentPlace(rule.place) })) }, hosts };
}

function hostText(host: SecretHost): string {
  if (host.kind === 'name') return host.name;
  return host.kind === 'one-level' ? `*.${host.suffix}` : `~${host.text}`;
}

function presentPlace(place: SecretPlace): { readonly type: string; readonly [field: string]: unknown } {
  switch (place.kind) {
    case 'bearer':
      return { type: 'bearer' };
    case 'basic':
      return { type: 'basic', ...(place.username === null ? {} : { username: place.username }) };
    case 'header':
      return { type: 'api-key', header: place.name, ...(place.prefix === '' ? {} : { prefix: place.prefix }) };
    case 'headers':
      return { type: 'custom', headers: place.headers };
    case 'query':
      return { type: 'custom', query: { [place.name]: placeholder } };
  }
}
