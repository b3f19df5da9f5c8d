import { Type, type Static } from 'typebox';
import { PaddockError } from '../../core/errors.ts';
import type { SecretHost, SecretPlace, SecretRule } from '../../core/network/inspection.ts';
import { parseHostRegex } from '../../core/secrets/hosts.ts';
import { hasPlaceholder, placeholder, secretRule } from '../../core/secrets/rules.ts';

const StringMap = Type.Record(Type.String(), Type.String());

/** Where a secret goes, in the words of this wire (contract, section 2.13). */
export const Scope = Type.Object({
  domain_regex: Type.String(),
  injection_type: Type.Optional(Type.String()),
  header_name: Type.Optional(Type.String()),
  value_prefix: Type.Optional(Type.String()),
  basic_username: Type.Optional(Type.String()),
  extra_headers: Type.Optional(StringMap),
  query_params: Type.Optional(StringMap),
});
export type ScopeBody = Static<typeof Scope>;

const supported = ['bearer', 'header', 'basic', 'query'] as const;
/** Of the contract; each needs a protocol of its own at the proxy. */
const unsupported: ReadonlySet<string> = new Set(['sigv4', 'oidc', 'hmac', 'redis', 'postgres', 'mysql', 'smtp', 'mongodb']);

/** @throws PaddockError `invalid_argument` with the path of the field. */
export function ruleOf(scope: ScopeBody, field: string): SecretRule {
  const type = typeOf(scope, field);
  const { place, extraHeaders, extraQuery } = placed(scope, type, field);
  return secretRule(
    { hosts: parseHostRegex(scope.domain_regex, `${field}.domain_regex`), place, extraHeaders, extraQuery },
    { hosts: `${field}.domain_regex`, header: `${field}.header_name`, prefix: `${field}.value_prefix`, username: `${field}.basic_username`, headers: `${field}.extra_headers`, query: `${field}.query_params` },
  );
}

function typeOf(scope: ScopeBody, field: string): (typeof supported)[number] {
  const { injection_type: type } = scope;
  if (type === undefined || type === '') return scope.header_name ? 'header' : scope.basic_username === undefined ? 'bearer' : 'basic';
  const known = supported.find((each) => each === type);
  if (known !== undefined) return known;
  const why = unsupported.has(type) ? 'is not available yet, and is refused rather than ignored' : 'is not known';
  throw invalid(`${field}.injection_type`, `${JSON.stringify(type.slice(0, 40))} ${why}; there is ${supported.join(', ')}`);
}

interface Placed {
  readonly place: SecretPlace;
  readonly extraHeaders: Readonly<Record<string, string>>;
  readonly extraQuery: Readonly<Record<string, string>>;
}

function placed({ header_name: name = '', value_prefix: prefix, basic_username: username, extra_headers: headers = {}, query_params: query = {} }: ScopeBody, type: (typeof supported)[number], field: string): Placed {
  const templates = Object.fromEntries(Object.entries(headers).filter(([, value]) => hasPlaceholder(value)));
  const extraHeaders = Object.fromEntries(Object.entries(headers).filter(([, value]) => !hasPlaceholder(value)));
  if (Object.keys(templates).length > 0 && type !== 'header') throw invalid(`${field}.extra_headers`, `can hold ${placeholder} only with injection_type header`);
  switch (type) {
    case 'bearer': {
      const usual = (name === '' || name.toLowerCase() === 'authorization') && (prefix === undefined || prefix === 'Bearer ');
      return { place: usual ? { kind: 'bearer' } : { kind: 'header', name: name || 'authorization', prefix: prefix ?? 'Bearer ' }, extraHeaders, extraQuery: query };
    }
    case 'basic':
      return { place: { kind: 'basic', username: username || null }, extraHeaders, extraQuery: query };
    case 'header': {
      if (Object.keys(templates).length > 0) return { place: { kind: 'headers', headers: name === '' ? templates : { [name]: `${prefix ?? ''}${placeholder}`, ...templates } }, extraHeaders, extraQuery: query };
      if (name === '') throw invalid(`${field}.header_name`, 'is required with injection_type header');
      return { place: { kind: 'header', name, prefix: prefix ?? '' }, extraHeaders, extraQuery: query };
    }
    case 'query': {
      const marked = Object.keys(query).filter((key) => query[key] === '' || hasPlaceholder(query[key]!));
      const [parameter = name] = marked;
      if (marked.length > 1 || parameter === '') throw invalid(`${field}.query_params`, `must have one parameter whose value is empty or ${placeholder}: the secret goes there`);
      const { [parameter]: _secret, ...extraQuery } = query;
      return { place: { kind: 'query', name: parameter }, extraHeaders, extraQuery };
    }
  }
}

/** The same the other way, also for secrets of another wire. */
export function scopesOf(rules: readonly SecretRule[]): ScopeBody[] {
  return rules.flatMap((rule) => [...new Set(rule.hosts.map(regexOf))].map((domain_regex) => ({ domain_regex, ...injectionOf(rule.place), ...extrasOf(rule) })));
}

export function regexOf(host: SecretHost): string {
  if (host.kind === 'regex') return host.text;
  const escaped = (name: string): string => name.replaceAll('.', '\\.');
  // A name that was written as a pattern is shown as it was written.
  if (host.kind === 'name') return host.text === host.name ? escaped(host.name) : host.text;
  return `[^.]+\\.${escaped(host.suffix)}`;
}

function injectionOf(place: SecretPlace): Omit<ScopeBody, 'domain_regex'> {
  switch (place.kind) {
    case 'bearer':
      return { injection_type: 'bearer', header_name: 'Authorization', value_prefix: 'Bearer ' };
    case 'basic':
      return { injection_type: 'basic', ...(place.username === null ? {} : { basic_username: place.username }) };
    case 'header':
      return { injection_type: 'header', header_name: place.name, ...(place.prefix === '' ? {} : { value_prefix: place.prefix }) };
    case 'headers':
      return { injection_type: 'header', extra_headers: { ...place.headers } };
    case 'query':
      return { injection_type: 'query', query_params: { [place.name]: placeholder } };
  }
}

function extrasOf({ place, extraHeaders, extraQuery }: SecretRule): Partial<ScopeBody> {
  const headers = { ...(place.kind === 'headers' ? place.headers : {}), ...extraHeaders };
  const query = { ...(place.kind === 'query' ? { [place.name]: placeholder } : {}), ...extraQuery };
  return { ...(Object.keys(headers).length === 0 ? {} : { extra_headers: headers }), ...(Object.keys(query).length === 0 ? {} : { query_params: query }) };
}

function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}.`, { field });
}
