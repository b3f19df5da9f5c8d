import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertFreeSpace, assertSuitable, parseOsRelease } from './machine.mjs';

const bookworm =
  'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nVERSION="12 (bookworm)"\nVERSION_CODENAME=bookworm\nID=debian\n';
const good = {
  platform: 'linux',
  architecture: 'x64',
  uid: 0,
  capabilities: (1n << 41n) - 1n,
  osRelease: bookworm,
  hasApt: true,
};

test('Debian 12 on x86_64 and arm64 is accepted, with Debian’s name of the processor', () => {
  assert.deepEqual(assertSuitable(good), { architecture: 'amd64', codename: 'bookworm' });
  assert.equal(assertSuitable({ ...good, architecture: 'arm64' }).architecture, 'arm64');
});

test('Debian testing, which has no version, is accepted, and Ubuntu with sandboxes of Debian', () => {
  assert.equal(
    assertSuitable({ ...good, osRelease: 'PRETTY_NAME="Debian GNU/Linux forky/sid"\nVERSION_CODENAME=forky\nID=debian\n' })
      .codename,
    'forky',
  );
  assert.equal(
    assertSuitable({ ...good, osRelease: 'PRETTY_NAME="Ubuntu 24.04"\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nID=ubuntu\n' })
      .codename,
    'bookworm',
  );
});

const refused = [
  ['another system', { platform: 'darwin' }, 'Paddock runs on Linux: use a Debian 12 machine or virtual machine.'],
  [
    'another processor',
    { architecture: 'riscv64' },
    'Paddock runs on x86_64 and arm64, and this machine is riscv64: use another machine, or a 64-bit Node.',
  ],
  [
    'another user',
    { uid: 1000 },
    'Paddock needs root for namespaces, mounts and packages: run the same command as root (sudo -i first).',
  ],
  [
    'root of a container',
    { capabilities: 0xa80425fbn },
    'This root may not make namespaces and mounts (CAP_SYS_ADMIN is missing, as in a container): run Paddock on the machine itself or in a privileged container.',
  ],
  [
    'an old Debian',
    { osRelease: bookworm.replaceAll('12', '11').replaceAll('bookworm', 'bullseye') },
    'Debian GNU/Linux 11 (bullseye) is too old: upgrade to Debian 12 or newer.',
  ],
  [
    'a system without apt',
    { hasApt: false, osRelease: 'PRETTY_NAME="Fedora Linux 42"\nID=fedora\n' },
    'Paddock sets itself up with apt, and Fedora Linux 42 has none: use Debian 12 or newer.',
  ],
];
for (const [name, difference, message] of refused) {
  test(`${name} is refused with one sentence that says what to do`, () => {
    assert.throws(() => assertSuitable({ ...good, ...difference }), { name: 'SetupFailure', message });
  });
}

test('too little free space is refused with the place and the way out', () => {
  assert.throws(() => assertFreeSpace('/data', 1.5 * 1024 ** 3), {
    message: 'Only 1.5 GiB are free in /data and set-up needs 4: free some space, or set PADDOCK_DATA_DIR to a larger disk.',
  });
  assertFreeSpace('/data', 5 * 1024 ** 3);
});

test('os-release values are read with and without quotes', () => {
  assert.deepEqual(parseOsRelease("ID='debian'\nVERSION_ID=13\nVERSION_CODENAME=trixie\nPRETTY_NAME=Debian\n"), {
    id: 'debian',
    codename: 'trixie',
    title: 'Debian',
    version: 13,
  });
});
