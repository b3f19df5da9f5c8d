import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { contains, disjoint, formatAddress, formatCidr, isNeverReachable, networkOf, neverReachableCidrs, parseAddress, parseIpv4, type Cidr } from './addresses.ts';

const address = fc.integer({ min: 0, max: 0xffff_ffff });

describe('an address in any spelling', () => {
  const spellings: [string, string][] = [
    ['127.0.0.1', '127.0.0.1'],
    ['127.1', '127.0.0.1'],
    ['127.0.1', '127.0.0.1'],
    ['2130706433', '127.0.0.1'],
    ['0x7f000001', '127.0.0.1'],
    ['0X7F.1', '127.0.0.1'],
    ['0177.0.0.1', '127.0.0.1'],
    ['017700000001', '127.0.0.1'],
    ['127.0.0.1.', '127.0.0.1'],
    ['0', '0.0.0.0'],
    ['0x', '0.0.0.0'],
    ['169.254.43518', '169.254.169.254'],
    ['0xa9.0376.0xa9fe', '169.254.169.254'],
    ['2852039166', '169.254.169.254'],
    ['4294967295', '255.255.255.255'],
    ['192.168.257', '192.168.1.1'],
  ];
  for (const [text, meant] of spellings) it(`${text} is ${meant}`, () => assert.deepEqual(parseAddress(text), { family: 4, address: parseIpv4(meant) }));

  const none = ['', '.', '256.1.1.1', '1.2.3.256', '1.2.3.4.5', '4294967296', '0400.1.1.1', '08.1.1.1', '1..2', 'a.b', '0xg', '-1', '+1', '1 ', ' 1', '1.2.3.4/8', '1e3', '١٢٧.0.0.1', ':', '1:2', '12345::', '::1::', '1:2:3:4:5:6:7:8:9', ':1:2:3:4:5:6:7:8', '::1.2.3', 'fe80::g'];
  for (const text of none) it(`${JSON.stringify(text)} is none`, () => assert.equal(parseAddress(text), null));

  const embedded: [string, string | null][] = [
    ['::ffff:169.254.169.254', '169.254.169.254'],
    ['::ffff:a9fe:a9fe', '169.254.169.254'],
    ['[::FFFF:127.0.0.1]', '127.0.0.1'],
    ['0:0:0:0:0:ffff:10.0.0.1', '10.0.0.1'],
    ['::ffff:0:10.0.0.1', '10.0.0.1'],
    ['::1', '0.0.0.1'],
    ['::', '0.0.0.0'],
    ['::10.0.0.1', '10.0.0.1'],
    ['64:ff9b::a9fe:a9fe', '169.254.169.254'],
    ['64:ff9b:1::10.0.0.1', '10.0.0.1'],
    ['2002:a00:1::', '10.0.0.1'],
    ['2001:0:4136:e378:8000:63bf:f5ff:fffe', '10.0.0.1'],
    ['fe80::5efe:10.0.0.1%eth0', '10.0.0.1'],
    ['2606:4700::1111', null],
    ['fd00::1', null],
  ];
  for (const [text, inner] of embedded) it(`${text} carries ${inner ?? 'none'}`, () => assert.deepEqual(parseAddress(text), { family: 6, embedded: inner === null ? null : parseIpv4(inner) }));

  it('the strict spelling is read back, and only that one', () => {
    fc.assert(fc.property(address, (value) => parseIpv4(formatAddress(value)) === value));
    for (const [text, meant] of spellings) if (text !== meant) assert.equal(parseIpv4(text), null);
  });

  it('every spelling that a WHATWG URL reads as an address is read alike', () => {
    const number = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 0xffff_ffff })).chain((value) => fc.constantFrom(String(value), `0x${value.toString(16)}`, `0${value.toString(8)}`));
    fc.assert(
      fc.property(fc.array(number, { minLength: 1, maxLength: 5 }), (parts) => {
        const text = parts.join('.');
        const url = URL.canParse(`http://${text}/`) ? new URL(`http://${text}/`).hostname : null;
        const read = parseAddress(text);
        assert.equal(read?.family === 4 ? formatAddress(read.address) : null, url);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('addresses that nobody may reach', () => {
  for (const text of ['0.0.0.0', '10.255.255.255', '100.64.0.1', '100.100.100.200', '127.255.0.1', '168.63.129.16', '169.254.169.254', '172.16.0.1', '172.31.255.255', '192.0.0.192', '192.168.1.1', '198.18.0.1', '198.19.255.255', '224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255']) {
    it(`${text} is one`, () => assert.ok(isNeverReachable(parseIpv4(text) ?? NaN)));
  }
  for (const text of ['1.1.1.1', '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '126.255.255.255', '128.0.0.0', '168.63.129.15', '169.253.255.255', '172.15.255.255', '172.32.0.0', '192.0.1.0', '192.167.255.255', '192.169.0.0', '198.17.255.255', '198.20.0.0', '198.51.100.1', '223.255.255.255']) {
    it(`${text} is none`, () => assert.ok(!isNeverReachable(parseIpv4(text) ?? NaN)));
  }
  it('the packet filter gets the same ranges', () => {
    fc.assert(fc.property(address, (value) => neverReachableCidrs.some((cidr) => contains(cidr, value)) === isNeverReachable(value)), { numRuns: 2000 });
    assert.deepEqual(disjoint(neverReachableCidrs).length, neverReachableCidrs.length);
  });
});

describe('blocks of addresses', () => {
  const cidr = fc.tuple(address, fc.integer({ min: 0, max: 32 })).map(([value, prefix]): Cidr => ({ base: networkOf(value, prefix), prefix }));

  it('contain what shares their prefix', () => {
    assert.equal(formatCidr({ base: networkOf(parseIpv4('10.1.2.3') ?? 0, 8), prefix: 8 }), '10.0.0.0/8');
    fc.assert(fc.property(cidr, address, (block, value) => contains(block, value) === (block.prefix === 0 || block.base >>> (32 - block.prefix) === value >>> (32 - block.prefix))));
  });

  it('hold the same addresses after overlaps are taken out, each once', () => {
    const near = fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 24, max: 32 })).map(([value, prefix]): Cidr => ({ base: networkOf(value, prefix), prefix }));
    fc.assert(
      fc.property(fc.array(near, { maxLength: 12 }), (blocks) => {
        const apart = disjoint(blocks);
        for (let value = 0; value < 260; value++) assert.equal(apart.filter((block) => contains(block, value)).length, blocks.some((block) => contains(block, value)) ? 1 : 0);
      }),
    );
  });
});
