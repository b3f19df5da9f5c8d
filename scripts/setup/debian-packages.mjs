import { access, readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { CommandFailure, findCommand, run } from './command.mjs';
import { SetupFailure } from './failure.mjs';

/** What the server and set-up call, and the package that brings it. */
const COMMANDS = {
  nft: 'nftables',
  ip: 'iproute2',
  'mkfs.ext4': 'e2fsprogs',
  mount: 'mount',
  umount: 'mount',
  losetup: 'mount',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  setpriv: 'util-linux',
  flock: 'util-linux',
  ps: 'procps',
  tar: 'tar',
  gzip: 'gzip',
  mmdebstrap: 'mmdebstrap',
  go: 'golang-go',
};
const FILES = {
  '/etc/ssl/certs/ca-certificates.crt': 'ca-certificates',
  '/usr/share/keyrings/debian-archive-keyring.gpg': 'debian-archive-keyring',
};

/** What the tests need besides: a browser, and the program that gives it an authority to trust. */
const TEST_COMMANDS = { 'chromium-headless-shell': 'chromium-headless-shell', certutil: 'libnss3-tools' };

const LOCK_SECONDS = 600;

/** @returns {Promise<string[]>} the packages that bring what is missing */
export async function missingPackages({ commands = COMMANDS, files = FILES } = {}) {
  const missing = new Set();
  for (const [command, name] of Object.entries(commands)) if (!findCommand(command)) missing.add(name);
  for (const [path, name] of Object.entries(files))
    if (
      !(await access(path).then(
        () => true,
        () => false,
      ))
    )
      missing.add(name);
  return [...missing].sort();
}

/** Looks for the commands themselves, so that what came in another way (a newer Go, say) is used as it is. */
export async function planDebianPackages({ note }) {
  const packages = await missingPackages();
  if (packages.length === 0) return [];
  return [{ title: `Installing Debian packages: ${packages.join(', ')}`, work: () => install(packages, note, missingPackages) }];
}

/** Only for `npm test`. Without a browser every other test still runs; the one that needs it fails and says so. */
export async function planTestPackages({ tests, note }) {
  const missing = () => missingPackages({ commands: TEST_COMMANDS, files: {} });
  const packages = tests ? await missing() : [];
  if (packages.length === 0) return [];
  const work = async () => {
    try {
      await install(packages, note, missing);
    } catch (error) {
      if (!(error instanceof SetupFailure)) throw error;
      note(`${error.message} The test in a browser will fail; the others need none.`);
    }
  };
  return [{ title: `Installing Debian packages for the tests: ${packages.join(', ')}`, work }];
}

async function install(packages, note, stillMissing) {
  const lists = await readdir('/var/lib/apt/lists').catch(() => []);
  let updated = false;
  if (!lists.some((name) => name.includes('_Packages'))) {
    await update(note);
    updated = true;
  }
  const args = ['-q', '-y', '-o', `DPkg::Lock::Timeout=${LOCK_SECONDS}`, 'install', '--no-install-recommends', ...packages];
  try {
    await aptGet(args, note);
  } catch (error) {
    // Lists that are weeks old name files that the mirror no longer has.
    if (updated) throw cannotInstall(packages, error);
    await update(note);
    await aptGet(args, note).catch((again) => {
      throw cannotInstall(packages, again);
    });
  }
  const missing = await stillMissing();
  if (missing.length > 0)
    throw new SetupFailure(
      `apt installed ${missing.join(', ')}, but their commands are not there: run dpkg --verify ${missing.join(' ')}.`,
    );
}

/** The lock of the lists is not covered by apt's own timeout. */
async function update(note) {
  const deadline = Date.now() + LOCK_SECONDS * 1000;
  for (;;) {
    try {
      return await aptGet(['-qq', 'update'], note);
    } catch (error) {
      if (!/Could not get lock/.test(error.output ?? '') || Date.now() > deadline) {
        throw new SetupFailure('apt-get update failed: check the sources in /etc/apt and that their mirror can be reached.', {
          detail: error.output,
          cause: error,
        });
      }
      await delay(3000);
    }
  }
}

async function aptGet(args, note) {
  let told = false;
  const onOutput = (text) => {
    if (told || !/Could not get lock|Waiting for cache lock/.test(text)) return;
    told = true;
    note('Another apt is at work on this machine; waiting for it to finish.');
  };
  return run('apt-get', args, { env: { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_MODE: 'l', LC_ALL: 'C.UTF-8' }, onOutput });
}

function cannotInstall(packages, error) {
  if (!(error instanceof CommandFailure)) return error;
  return new SetupFailure(
    `apt could not install ${packages.join(', ')}: read its output above, and see that apt-get install works on this machine.`,
    { detail: error.output, cause: error },
  );
}
