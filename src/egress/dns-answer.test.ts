import assert from 'node:assert/strict';
import { test } from 'node:test';
import dns, { type Answer, type DecodedPacket, type RecordType } from 'dns-packet';
import { formatAddress, parseIpv4 } from '../core/network/addresses.ts';
import { parsePolicy } from '../core/network/parse.ts';
import type { SandboxId, TeamId } from '../core/ids.ts';
import { answerFor, encodeAnswer, rcode, sizeLimit, type DnsPlaces } from './dns-answer.ts';
import { decode } from './dns-upstream.ts';
import { Guest } from './guest.ts';
import { Resolver } from './resolver.ts';
import { TokenTables } from './scanners/pii/token-tables.ts';
import { defaultLimits } from './settings.ts';

const zone: Record<string, Answer[]> = {
  'good.example': [{ type: 'A', name: 'good.example', ttl: 20, data: '93.184.216.34' }],
  'alias.example': [
    // In an order that only a patient reader follows.
    { type: 'A', name: 'edge.cdn.example', ttl: 60, data: '93.184.216.40' },
    { type: 'CNAME', name: 'Alias.Example', ttl: 10, data: 'www.cdn.example' },
    { type: 'CNAME', name: 'www.cdn.example', ttl: 60, data: 'edge.cdn.example' },
  ],
  'half.example': [{ type: 'CNAME', name: 'half.example', ttl: 60, data: 'good.example' }],
  'loop.example': [{ type: 'CNAME', name: 'loop.example', ttl: 60, data: 'loop.example' }],
  'private.example': [{ type: 'A', name: 'private.example', ttl: 60, data: '192.168.1.1' }],
  'mixed.example': [
    { type: 'A', name: 'mixed.example', ttl: 60, data: '127.0.0.1' },
    { type: 'A', name: 'mixed.example', ttl: 60, data: '93.184.216.50' },
  ],
  'own.example': [{ type: 'A', name: 'own.example', ttl: 60, data: '93.184.216.99' }],
  'server.internal': [{ type: 'A', name: 'server.internal', ttl: 60, data: '93.184.216.60' }],
};

function scene(rules: { allow?: string[]; deny?: string[] }): { ask(name: string, type?: string): ReturnType<typeof answerFor>; asked: string[] } {
  const asked: string[] = [];
  const resolver = new Resolver({
    ask: (name: string): Promise<DecodedPacket> => {
      asked.push(name);
      return Promise.resolve({ type: 'response', flags: zone[name] === undefined ? 3 : 0, answers: zone[name] ?? [] } as DecodedPacket);
    },
  });
  const entry = { sandboxId: 'box' as SandboxId, teamId: 'team' as TeamId, address: '10.0.0.6', policy: parsePolicy({ allow: rules.allow ?? [], deny: rules.deny ?? [] }) };
  const guest = new Guest(entry, defaultLimits, new TokenTables());
  const places: DnsPlaces = { resolver, isOwn: (address) => formatAddress(address) === '93.184.216.99', syntheticFor: () => parseIpv4('198.18.7.7') };
  return { asked, ask: (name, type = 'A') => answerFor(guest, { name, type: type as RecordType, class: 'IN' }, places) };
}

const open = {};
const named = { allow: ['good.example', '*.good.example', 'alias.example', 'private.example', 'server.internal'] };
for (const [what, rules, name, type, code, answers, leaves] of [
  ['a public name', open, 'good.example', 'A', rcode.ok, ['93.184.216.34'], true],
  ['capital letters and a final dot', open, 'GOOD.Example.', 'A', rcode.ok, ['93.184.216.34'], true],
  ['a chain of aliases', open, 'alias.example', 'A', rcode.ok, ['93.184.216.40'], true],
  ['an alias that is answered without its address', open, 'half.example', 'A', rcode.ok, ['93.184.216.34'], true],
  ['an alias of itself', open, 'loop.example', 'A', rcode.ok, [], true],
  ['an unknown name', open, 'nowhere.example', 'A', rcode.noSuchName, [], true],
  ['a private address', open, 'private.example', 'A', rcode.ok, [], true],
  ['a loopback address among others', open, 'mixed.example', 'A', rcode.ok, ['93.184.216.50'], true],
  ["the host's own address", open, 'own.example', 'A', rcode.ok, [], true],
  ['an allowed name', named, 'good.example', 'A', rcode.ok, ['198.18.7.7'], true],
  ['an allowed name with a private address', named, 'private.example', 'A', rcode.ok, [], true],
  ['a name that no rule allows', named, 'evil.example', 'A', rcode.noSuchName, [], false],
  ['data in the labels of a name that no rule allows', named, `${'x'.repeat(60)}.evil.example`, 'TXT', rcode.noSuchName, [], false],
  ['a denied name', { deny: ['evil.example'] }, 'evil.example', 'MX', rcode.noSuchName, [], false],
  ['IPv6', open, 'good.example', 'AAAA', rcode.ok, [], false],
  ['HTTPS', open, 'good.example', 'HTTPS', rcode.ok, [], false],
  ['HTTPS by its number', open, 'good.example', 'UNKNOWN_65', rcode.ok, [], false],
  ['everything at once', open, 'good.example', 'ANY', rcode.refused, [], false],
  ['a zone', open, 'good.example', 'AXFR', rcode.refused, [], false],
  ['a name of one label', open, 'printer', 'A', rcode.noSuchName, [], false],
  ['a name of the local network', open, 'server.internal', 'A', rcode.noSuchName, [], false],
  ['a name of the local network that a rule allows', named, 'server.internal', 'A', rcode.ok, ['198.18.7.7'], true],
  ['an address as a name', open, '10.0.0.1', 'A', rcode.noSuchName, [], false],
  ['a name that is none', open, 'a b.example', 'A', rcode.noSuchName, [], false],
  ['the name of a private address', open, '1.1.168.192.in-addr.arpa', 'PTR', rcode.noSuchName, [], false],
] as [string, { allow?: string[]; deny?: string[] }, string, string, number, string[], boolean][]) {
  test(`${what}: ${leaves ? 'asked outside' : 'stays inside'}`, async () => {
    const { ask, asked } = scene(rules);
    const answer = await ask(name, type);
    assert.equal(answer.code, code);
    assert.deepEqual(answer.answers.map((record) => (record as { data: string }).data), answers);
    assert.equal(asked.length > 0, leaves, asked.join());
  });
}

test('a refusal says which rule was against it, in the answer and for the log', async () => {
  const answer = await scene({ deny: ['*.evil.example'] }).ask('a.evil.example');
  assert.equal(answer.blocked?.verdict.rule, '*.evil.example');
  const query = dns.decode(dns.encode({ id: 7, type: 'query', questions: [{ type: 'A', name: 'a.evil.example' }], additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 4096, flags: 0 } as never] }));
  const sent = decode(encodeAnswer(query, answer, sizeLimit(query)))!;
  assert.equal((sent.flags ?? 0) & 15, 3);
  const [option] = (sent.additionals![0] as unknown as { options: { code: number; data: Buffer }[] }).options;
  assert.equal(option?.code, 15);
  assert.match(option!.data.subarray(2).toString(), /a\.evil\.example is denied by the rule "\*\.evil\.example"/);
});

test('equal questions at the same time are asked once, and again only when the answer is old', async () => {
  const { ask, asked } = scene(open);
  await Promise.all(Array.from({ length: 50 }, () => ask('good.example')));
  await ask('good.example');
  assert.equal(asked.length, 1);
});

test('an answer that is too long for UDP is cut, so that it is asked for over TCP', () => {
  const query = dns.decode(dns.encode({ id: 7, type: 'query', questions: [{ type: 'TXT', name: 'a.example' }] }));
  const answers: Answer[] = [{ type: 'TXT', name: 'a.example', ttl: 1, data: ['x'.repeat(250), 'y'.repeat(250), 'z'.repeat(250)] }];
  const cut = dns.decode(encodeAnswer(query, { code: 0, answers }, sizeLimit(query)));
  assert.deepEqual([cut.flag_tc, cut.answers?.length], [true, 0]);
  assert.equal(dns.decode(encodeAnswer(query, { code: 0, answers }, null)).answers?.length, 1);
});
