import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { settings } from '../../src/config.ts';
import { neverReachableCidrs, formatCidr, parseIpv4 } from '../../src/core/network/addresses.ts';
import { decide } from '../../src/core/network/decide.ts';
import { parsePolicy } from '../../src/core/network/parse.ts';
import { repository } from '../harness/server.ts';

const read = (path: string): string => readFileSync(join(repository, path), 'utf8');
const pages = ['README.md', ...readdirSync(join(repository, 'docs')).filter((name) => name.endsWith('.md')).map((name) => join('docs', name))];

test('the configuration page says of every setting what the program says', () => {
  const rows = read('docs/configuration.md').split('\n').filter((line) => line.startsWith('| `PADDOCK_'));
  const wanted = settings.map(({ name, default: value, meaning }) => {
    const shown = value === '' ? '' : value.includes(' ') ? `${value} ` : `\`${value}\` `;
    return `| \`${name}\` | ${shown}| ${meaning} |`;
  });
  assert.deepEqual(rows, wanted);
});

test('the configuration page says of every template what its recipe says', () => {
  const page = read('docs/configuration.md');
  for (const file of readdirSync(join(repository, 'templates')).filter((each) => each.endsWith('.json'))) {
    const { name, limits } = JSON.parse(read(join('templates', file))) as { name: string; limits: Record<string, number> };
    const memory = limits['memory_mb']! >= 1024 ? `${limits['memory_mb']! / 1024} GiB` : `${limits['memory_mb']} MiB`;
    const row = `| \`${name}\` | ${limits['vcpus']} | ${memory} | ${limits['disk_mb']! / 1024} GiB | ${limits['pids']} |`;
    assert.ok(page.includes(row), `no row "${row}"`);
  }
});

test('no link of README or docs leads nowhere', () => {
  for (const page of pages) {
    for (const [, target = ''] of read(page).matchAll(/\]\(([^)#\s]+)[^)]*\)/g)) {
      if (/^https?:/.test(target)) continue;
      assert.ok(existsSync(join(repository, dirname(page), target)), `${page} links to ${target}`);
    }
  }
});

test('every file that the docs name is there', () => {
  for (const page of pages) {
    for (const [, path = ''] of read(page).matchAll(/`((?:src|test|bench|scripts|agent|templates|docs|bin)\/[\w./-]*\w)`/g)) {
      assert.ok(existsSync(join(repository, path)), `${page} names ${path}`);
    }
  }
});

test('every worked case of the network page is what the program decides', () => {
  const rows = read('docs/network.md').split('\n').filter((line) => /\| (allowed|blocked), `/.test(line));
  assert.ok(rows.length >= 20);
  for (const row of rows) {
    const [allow = '', deny = '', where = '', expected = ''] = row.split(' |').slice(0, 4).map((cell) => cell.replace(/^\|/, '').trim());
    const list = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, rule = '']) => rule);
    const [destination = ''] = list(where);
    const [name, address] = destination.includes(' → ') ? destination.split(' → ') : [null, destination];
    const verdict = decide(parsePolicy({ allow: list(allow), deny: list(deny) }), { name: name ?? null, address: parseIpv4(address ?? ''), port: 443 });
    assert.equal(`${verdict.allowed ? 'allowed' : 'blocked'}, \`${verdict.matchRule}\``, expected, row);
  }
});

test('the network page has every range that is always blocked', () => {
  const page = read('docs/network.md');
  for (const cidr of neverReachableCidrs) assert.ok(page.includes(`\`${formatCidr(cidr).replace('/32', '')}\``), formatCidr(cidr));
});
