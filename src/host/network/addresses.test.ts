import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatAddress } from '../../core/network/addresses.ts';
import { Subnet, linkAddresses, parseSubnet, slotCapacity } from './addresses.ts';

test('a network is parsed and its host bits are cut off', () => {
  const table: [text: string, result: string | null][] = [
    ['10.90.0.0/18', '10.90.0.0/18'],
    ['10.90.63.7/18', '10.90.0.0/18'],
    ['192.0.2.1', '192.0.2.1/32'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['255.255.255.255/32', '255.255.255.255/32'],
    ['256.0.0.0/8', null],
    ['10.0.0.0/33', null],
    ['10.0.0/8', null],
    ['10.0.0.0/', null],
    [' 10.0.0.0/8', null],
    ['010.0.0.0/8x', null],
    ['fe80::/64', null],
    ['default', null],
  ];
  for (const [text, result] of table) assert.equal(Subnet.parse(text)?.text ?? null, result, text);
});

test('a range for sandboxes is neither tiny nor vast', () => {
  assert.equal(parseSubnet('10.0.0.0/15'), null);
  assert.equal(parseSubnet('10.0.0.0/25'), null);
  assert.equal(parseSubnet('10.0.0.0/16')?.text, '10.0.0.0/16');
  assert.equal(parseSubnet('10.0.0.0/24')?.text, '10.0.0.0/24');
});

test('every slot of a range has a link of its own inside it', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 16 - 1 }), fc.integer({ min: 16, max: 24 }), (high, prefix) => {
      const subnet = parseSubnet(`${high >> 8}.${high & 255}.0.0/${prefix}`);
      assert.ok(subnet);
      const seen = new Set<string>();
      for (let slot = 0; slot <= slotCapacity(subnet); slot += Math.max(1, Math.floor(slotCapacity(subnet) / 50))) {
        const { near, far } = linkAddresses(subnet, slot);
        for (const address of [near, far]) {
          assert.ok(!seen.has(address), `${address} twice`);
          seen.add(address);
          assert.ok(Subnet.parse(address)?.overlaps(subnet), `${address} outside ${subnet.text}`);
        }
      }
      assert.throws(() => linkAddresses(subnet, slotCapacity(subnet) + 1), RangeError);
    }),
    { numRuns: 50 },
  );
});

test('addresses are written as they are read', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), (address) => {
      assert.equal(Subnet.parse(formatAddress(address))?.base, address);
    }),
  );
});

test('two ranges overlap exactly when one holds an address of the other', () => {
  const overlaps = (a: string, b: string): boolean => Subnet.parse(a)!.overlaps(Subnet.parse(b)!);
  assert.ok(overlaps('10.0.0.0/8', '10.90.0.0/18'));
  assert.ok(overlaps('10.90.1.1/32', '10.90.0.0/18'));
  assert.ok(!overlaps('10.90.64.0/18', '10.90.0.0/18'));
  assert.ok(overlaps('0.0.0.0/0', '203.0.113.9'));
});
