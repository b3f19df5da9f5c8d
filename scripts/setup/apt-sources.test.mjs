import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  debianArchives,
  parseDeb822,
  parseOneLine,
  readMachineSources,
  selectDebianArchive,
  sourceLine,
} from './apt-sources.mjs';

const oneLine = [
  [
    'a plain line',
    'deb http://mirror.test/debian bookworm main',
    [{ uri: 'http://mirror.test/debian', suite: 'bookworm', components: ['main'] }],
  ],
  [
    'a slash at the end and several components',
    'deb http://mirror.test/debian/ bookworm main contrib',
    [{ uri: 'http://mirror.test/debian', suite: 'bookworm', components: ['main', 'contrib'] }],
  ],
  [
    'options',
    'deb [ arch=amd64 signed-by=/usr/share/keyrings/k.gpg check-valid-until=no ] https://m.test/debian bookworm main # end',
    [
      {
        uri: 'https://m.test/debian',
        suite: 'bookworm',
        components: ['main'],
        signedBy: '/usr/share/keyrings/k.gpg',
        checkValidUntil: 'no',
      },
    ],
  ],
  ['a flat archive', 'deb http://m.test/ ./', [{ uri: 'http://m.test', suite: './', components: [] }]],
  [
    'sources of packages, comments and blank lines',
    '# deb http://x.test bookworm main\n\ndeb-src http://x.test bookworm main\n',
    [],
  ],
];
for (const [name, text, expected] of oneLine) {
  test(`sources.list: ${name}`, () => assert.deepEqual(parseOneLine(text), expected));
}

const deb822 = [
  [
    'every URI with every suite, comments left out',
    'Types: deb deb-src\n# a comment\nURIs: http://m.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/k.gpg\n',
    [
      { uri: 'http://m.test/debian', suite: 'bookworm', components: ['main'], signedBy: '/usr/share/keyrings/k.gpg' },
      { uri: 'http://m.test/debian', suite: 'bookworm-updates', components: ['main'], signedBy: '/usr/share/keyrings/k.gpg' },
    ],
  ],
  ['a disabled stanza', 'Types: deb\nURIs: http://m.test/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n', []],
  ['only sources of packages', 'Types: deb-src\nURIs: http://m.test/debian\nSuites: bookworm\nComponents: main\n', []],
  [
    'two stanzas, lists over several lines, a key written into the file',
    'types: deb\nuris:\n http://a.test/debian\n http://b.test/debian\nsuites: trixie\ncomponents: main\n\nTypes: deb\nURIs: http://c.test/debian\nSuites: trixie\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n',
    ['http://a.test/debian', 'http://b.test/debian', 'http://c.test/debian'].map((uri) => ({
      uri,
      suite: 'trixie',
      components: ['main'],
    })),
  ],
];
for (const [name, text, expected] of deb822) {
  test(`deb822: ${name}`, () => assert.deepEqual(parseDeb822(text), expected));
}

test('another vendor with a suite of the release’s name is not taken for Debian', () => {
  const sources = parseOneLine(`
    deb https://vendor.test/linux/debian bookworm stable
    deb https://packages.vendor.test bookworm main
    deb http://m.test/debian bookworm main
    deb http://m.test/debian bookworm-updates main
    deb http://s.test/debian-security bookworm-security main`);
  const { archive, security } = selectDebianArchive(sources, 'bookworm');
  assert.equal(archive?.uri, 'http://m.test/debian');
  assert.equal(security?.uri, 'http://s.test/debian-security');
});

test('a machine without Debian’s archive has none', () => {
  assert.deepEqual(selectDebianArchive(parseOneLine('deb http://u.test/ubuntu noble main'), 'bookworm'), {});
});

test('a release named by its state is Debian’s when the archive looks like it', () => {
  const sources = parseOneLine(
    'deb https://vendor.test/apt stable main\ndeb http://m.test/debian stable main\ndeb http://s.test/debian-security stable-security main',
  );
  const { archive, security } = selectDebianArchive(sources, 'bookworm');
  assert.deepEqual([archive?.uri, security?.uri], ['http://m.test/debian', 'http://s.test/debian-security']);
});

test('a mirror given by the user is what sandboxes are told, its security archive beside it', () => {
  const sources = parseOneLine('deb http://m.test/debian bookworm main\ndeb http://m.test/debian bookworm-updates main');
  const { machine, guest } = debianArchives(sources, 'bookworm', 'http://own.test/debian/');
  assert.deepEqual(
    [machine.archive.uri, guest.archive.uri, guest.security?.uri],
    ['http://m.test/debian', 'http://own.test/debian', 'http://own.test/debian-security'],
  );
  assert.equal(debianArchives(sources, 'bookworm', 'http://own.test/apt').guest.security, undefined);
  assert.equal(debianArchives([], 'bookworm', 'http://own.test/debian').machine.archive.uri, 'http://own.test/debian');
});

test('a machine without Debian’s archive and without a mirror is refused with what to do', () => {
  assert.throws(() => debianArchives([], 'bookworm'), {
    name: 'SetupFailure',
    message:
      'No Debian archive for bookworm was found in /etc/apt: add it, or set PADDOCK_TEMPLATE_APT_MIRROR to a mirror that ends in /debian.',
  });
});

test('our own lines always name a keyring and never trust without one', () => {
  const [trusted] = parseOneLine('deb [trusted=yes signed-by=/missing.gpg] http://m.test/debian bookworm main');
  assert.equal(
    sourceLine(trusted, 'bookworm-backports'),
    'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.test/debian bookworm-backports main',
  );
});

test('both formats are read, sources.list first, and a mirror file is resolved to what it names', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'apt-sources-'));
  try {
    await mkdir(join(directory, 'sources.list.d'));
    await writeFile(join(directory, 'mirrors'), '# mirrors\nhttps://cloud.test/debian/ priority:1\n');
    await writeFile(join(directory, 'sources.list'), 'deb http://first.test/debian bookworm main\n');
    await writeFile(join(directory, 'sources.list.d', 'b.list'), 'deb http://second.test/debian bookworm main\n');
    await writeFile(
      join(directory, 'sources.list.d', 'a.sources'),
      `Types: deb\nURIs: mirror+file:${directory}/mirrors\nSuites: bookworm\nComponents: main\n`,
    );
    await writeFile(join(directory, 'sources.list.d', 'c.list.disabled'), 'deb http://never.test/debian bookworm main\n');
    const uris = (await readMachineSources(directory)).map(({ uri }) => uri);
    assert.deepEqual(uris, ['http://first.test/debian', 'https://cloud.test/debian', 'http://second.test/debian']);
  } finally {
    await rm(directory, { recursive: true });
  }
});
