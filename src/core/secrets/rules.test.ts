import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SecretPlace } from '../network/inspection.ts';
import { parseHostPattern } from './hosts.ts';
import { providers } from './providers.ts';
import { secretRule } from './rules.ts';
import { newStandIn } from './stand-in.ts';
import { assertSecretValue } from './value.ts';

const fields = { hosts: 'hosts', header: 'auth.header', prefix: 'auth.prefix', username: 'auth.username', headers: 'auth.headers', query: 'query_params' };
const hosts = [parseHostPattern('api.example.com', 'hosts[0]')];
const rule = (place: SecretPlace, extra: { extraHeaders?: Record<string, string>; extraQuery?: Record<string, string> } = {}) => secretRule({ hosts, place, ...extra }, fields);
const refused = (work: () => unknown, field: string): void => assert.throws(work, (error: Error & { code?: string }) => error.code === 'invalid_argument' && error.message.startsWith(`${field} `), field);

test('a header that frames the message or says where it goes is refused, whatever its case', () => {
  for (const name of ['Host', 'host', 'Content-Length', 'TRANSFER-ENCODING', 'Connection', 'Keep-Alive', 'TE', 'Trailer', 'Upgrade', 'Proxy-Authorization', 'Expect', 'HTTP2-Settings', 'Content-Encoding', 'a b', 'a:b', 'a\r\nb', '', ':authority', 'x'.repeat(129)]) {
    refused(() => rule({ kind: 'header', name, prefix: '' }), 'auth.header');
    refused(() => rule({ kind: 'bearer' }, { extraHeaders: { [name]: 'x' } }), 'auth.headers');
  }
});

test('a prefix, template, user name or parameter that could end its place is refused', () => {
  refused(() => rule({ kind: 'header', name: 'x-key', prefix: 'Token\r\nx: ' }), 'auth.prefix');
  refused(() => rule({ kind: 'headers', headers: { 'x-a': '{{ value }}\nx: y' } }), 'auth.headers.x-a');
  refused(() => rule({ kind: 'headers', headers: { 'x-a': 'no place' } }), 'auth.headers.x-a');
  refused(() => rule({ kind: 'headers', headers: {} }), 'auth.headers');
  refused(() => rule({ kind: 'headers', headers: { 'x-a': '{{ value }}', 'X-A': '{{ value }}' } }), 'auth.headers');
  refused(() => rule({ kind: 'headers', headers: Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`x-${i}`, '{{ value }}'])) }), 'auth.headers');
  for (const username of ['', 'a:b', 'a\0b', 'ü', 'x'.repeat(257)]) refused(() => rule({ kind: 'basic', username }), 'auth.username');
  for (const name of ['', 'a&b', 'a=b', 'a b', 'a#b', 'x'.repeat(129)]) refused(() => rule({ kind: 'query', name }), 'query_params');
  refused(() => rule({ kind: 'bearer' }, { extraHeaders: { Authorization: 'x' } }), 'auth.headers.authorization');
  refused(() => secretRule({ hosts: [], place: { kind: 'bearer' } }, fields), 'hosts');
  refused(() => secretRule({ hosts: Array.from({ length: 17 }, () => hosts[0]!), place: { kind: 'bearer' } }, fields), 'hosts');
});

test('names come in lower case and placeholders in one form', () => {
  assert.deepEqual(rule({ kind: 'headers', headers: { 'X-Key': 'a {{value}} b {{  value }}' } }).place, { kind: 'headers', headers: { 'x-key': 'a {{ value }} b {{ value }}' } });
  assert.deepEqual(rule({ kind: 'header', name: 'X-API-Key', prefix: 'v1 ' }).place, { kind: 'header', name: 'x-api-key', prefix: 'v1 ' });
});

test('a value that no request can carry is refused without being repeated', () => {
  const bearer = [rule({ kind: 'bearer' })];
  for (const value of ['', 'a\nb', 'secretvalue\n', 'a\rb', 'a\0b', 'a\tb', 'a\x7fb', 'a\u0085b', '\ud800', 'key😀', 'x'.repeat(8193), 'ü'.repeat(4097), 'sécret']) {
    assert.throws(() => assertSecretValue(value, bearer), (error: Error) => error.message.startsWith('value ') && (value.length < 5 || !error.message.includes(value)), JSON.stringify(value.slice(0, 20)));
  }
  assertSecretValue('x'.repeat(8192), bearer);
  assertSecretValue('pässword', [rule({ kind: 'basic', username: null })]);
});

test('a stand-in looks like a key of its provider and never comes twice', () => {
  const shapes: Record<string, RegExp> = { anthropic: /^sk-ant-api03-[A-Za-z0-9]{48}$/, github: /^ghp_[A-Za-z0-9]{36}$/, exa: /^[A-Za-z0-9]{32}$/, xai: /^xai-[A-Za-z0-9]{80}$/ };
  for (const [provider, shape] of Object.entries(shapes)) assert.match(newStandIn(provider), shape);
  assert.match(newStandIn(null), /^ssrv_proxy_[A-Za-z0-9]{43}$/);
  assert.equal(new Set(Array.from({ length: 100 }, () => newStandIn('openai'))).size, 100);
});

test('every provider of the catalogue makes rules that hold, and the catalogue is in order', () => {
  assert.deepEqual(providers.map(({ name }) => name), providers.map(({ name }) => name).toSorted());
  for (const { rules } of providers) {
    for (const { hosts, place, presetHeaders } of rules) secretRule({ hosts: hosts.map((host) => parseHostPattern(host, 'hosts')), place, ...(presetHeaders === undefined ? {} : { extraHeaders: presetHeaders }) }, fields);
  }
});
