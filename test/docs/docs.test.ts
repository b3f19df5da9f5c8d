import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { settings } from '../../src/config.ts';
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
  for (const file of readdirSync(join(repository, 'templates'))) {
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

