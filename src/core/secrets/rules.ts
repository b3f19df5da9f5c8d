import type { SecretHost, SecretPlace, SecretRule } from '../network/inspection.ts';
import { invalid } from './faults.ts';
import { assertHeaderText, parseHeaderName } from './headers.ts';

/** Where a rule stands in a request, for messages. */
export interface RuleFields {
  readonly hosts: string;
  readonly header: string;
  readonly prefix: string;
  readonly username: string;
  readonly headers: string;
  readonly query: string;
}

export interface RuleInput {
  readonly hosts: readonly SecretHost[];
  readonly place: SecretPlace;
  readonly extraHeaders?: Readonly<Record<string, string>>;
  readonly extraQuery?: Readonly<Record<string, string>>;
}

export const mostHosts = 16;
export const mostRules = 16;
const mostHeaders = 8;

/** Stands in a template for the value. */
export const placeholder = '{{ value }}';
const placeholders = /\{\{\s*value\s*\}\}/g;

export function hasPlaceholder(text: string): boolean {
  return text.search(placeholders) >= 0;
}

/**
 * One rule, checked. How a binding uses it (`when`) is the binding's affair; as stored it is `stand-in`.
 *
 * @throws PaddockError `invalid_argument` naming the field and the limit.
 */
export function secretRule({ hosts, place, extraHeaders = {}, extraQuery = {} }: RuleInput, fields: RuleFields): SecretRule {
  if (hosts.length < 1 || hosts.length > mostHosts) throw invalid(fields.hosts, `must have 1 to ${mostHosts} entries, not ${hosts.length}`);
  const checked = checkedPlace(place, fields);
  const taken = headersOf(checked);
  return Object.freeze({
    hosts: Object.freeze([...hosts]),
    place: Object.freeze(checked),
    when: 'stand-in',
    methods: Object.freeze([]),
    paths: Object.freeze([]),
    extraHeaders: checkedHeaders(extraHeaders, fields.headers, (name) => {
      if (taken.has(name)) throw invalid(`${fields.headers}.${name}`, 'is where the secret itself goes');
    }),
    extraQuery: checkedQuery(extraQuery, fields.query),
  });
}

/** @throws PaddockError when a secret has no rule or too many. */
export function assertRules(rules: readonly SecretRule[], field: string): void {
  if (rules.length < 1 || rules.length > mostRules) throw invalid(field, `must have 1 to ${mostRules} entries, not ${rules.length}`);
}

/** The headers that a place sets, lower case. */
export function headersOf(place: SecretPlace): ReadonlySet<string> {
  switch (place.kind) {
    case 'bearer':
    case 'basic':
      return new Set(['authorization']);
    case 'header':
      return new Set([place.name]);
    case 'headers':
      return new Set(Object.keys(place.headers));
    case 'query':
      return new Set();
  }
}

function checkedPlace(place: SecretPlace, fields: RuleFields): SecretPlace {
  switch (place.kind) {
    case 'bearer':
      return place;
    case 'basic':
      if (place.username !== null) assertUsername(place.username, fields.username);
      return place;
    case 'header':
      assertHeaderText(place.prefix, fields.prefix, 128);
      return { kind: 'header', name: parseHeaderName(place.name, fields.header), prefix: place.prefix };
    case 'headers': {
      if (Object.keys(place.headers).length === 0) throw invalid(fields.headers, `must have 1 to ${mostHeaders} entries`);
      const headers = checkedHeaders(place.headers, fields.headers, (name, value) => {
        if (!hasPlaceholder(value)) throw invalid(`${fields.headers}.${name}`, `must hold ${placeholder} where the secret goes`);
      });
      return { kind: 'headers', headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value.replaceAll(placeholders, placeholder)])) };
    }
    case 'query':
      assertParameter(place.name, fields.query);
      return place;
  }
}

/** The colon ends it in what goes over the wire (RFC 7617). */
function assertUsername(username: string, field: string): void {
  assertHeaderText(username, field, 256);
  if (username === '' || username.includes(':')) throw invalid(field, 'must have 1 to 256 characters and no colon');
}

function checkedHeaders(headers: Readonly<Record<string, string>>, field: string, check: (name: string, value: string) => void): Readonly<Record<string, string>> {
  const entries = Object.entries(headers);
  if (entries.length > mostHeaders) throw invalid(field, `has ${entries.length} entries; the limit is ${mostHeaders}`);
  const checked: Record<string, string> = {};
  for (const [given, value] of entries) {
    const name = parseHeaderName(given, field);
    if (Object.hasOwn(checked, name)) throw invalid(field, `has ${JSON.stringify(name)} twice`);
    assertHeaderText(value, `${field}.${given}`);
    check(name, value);
    checked[name] = value;
  }
  return Object.freeze(checked);
}

function checkedQuery(query: Readonly<Record<string, string>>, field: string): Readonly<Record<string, string>> {
  const entries = Object.entries(query);
  if (entries.length > mostHeaders) throw invalid(field, `has ${entries.length} entries; the limit is ${mostHeaders}`);
  for (const [name, value] of entries) {
    assertParameter(name, field);
    assertHeaderText(value, `${field}.${name}`);
  }
  return Object.freeze(Object.fromEntries(entries));
}

function assertParameter(name: string, field: string): void {
  if (!/^[\x21-\x7e]{1,128}$/.test(name) || /[&=#+%]/.test(name)) throw invalid(field, 'must be a name of a query parameter: 1 to 128 printable characters without & = # + %');
}
