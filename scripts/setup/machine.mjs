import fs, { existsSync, readFileSync } from 'node:fs';
import { findCommand } from './command.mjs';
import { SetupFailure } from './failure.mjs';
import { debianArchitecture } from './places.mjs';

const CAP_SYS_ADMIN = 21n;
const FREE_GIB = 4;

/** What the checks look at, apart so that a test can present another machine. */
export function observeMachine() {
  return {
    platform: process.platform,
    architecture: process.arch,
    uid: process.getuid?.() ?? -1,
    capabilities: BigInt(`0x${/^CapEff:\s*([0-9a-f]+)/m.exec(readText('/proc/self/status'))?.[1] ?? '0'}`),
    osRelease: readText('/etc/os-release'),
    hasApt: ['apt-get', 'apt-config', 'dpkg'].every((command) => findCommand(command) !== undefined),
  };
}

/** Of systems that only resemble Debian the release has another name; sandboxes and runsc come from this one. */
const DEBIAN_ELSEWHERE = 'bookworm';

/**
 * Whether Paddock can run here at all.
 * @returns {{architecture: string, codename: string}} architecture in Debian's words, and the Debian release to take
 *   runsc and the templates from
 * @throws {SetupFailure}
 */
export function assertSuitable(observed = observeMachine()) {
  if (observed.platform !== 'linux') throw new SetupFailure('Paddock runs on Linux: use a Debian 12 machine or virtual machine.');
  const architecture = debianArchitecture(observed.architecture);
  if (!architecture)
    throw new SetupFailure(
      `Paddock runs on x86_64 and arm64, and this machine is ${observed.architecture}: use another machine, or a 64-bit Node.`,
    );
  if (observed.uid !== 0)
    throw new SetupFailure(
      'Paddock needs root for namespaces, mounts and packages: run the same command as root (sudo -i first).',
    );
  if (!((observed.capabilities >> CAP_SYS_ADMIN) & 1n)) {
    throw new SetupFailure(
      'This root may not make namespaces and mounts (CAP_SYS_ADMIN is missing, as in a container): run Paddock on the machine itself or in a privileged container.',
    );
  }
  const release = parseOsRelease(observed.osRelease);
  if (!observed.hasApt || !release.codename)
    throw new SetupFailure(`Paddock sets itself up with apt, and ${release.title} has none: use Debian 12 or newer.`);
  if (release.id === 'debian' && release.version !== undefined && release.version < 12) {
    throw new SetupFailure(`${release.title} is too old: upgrade to Debian 12 or newer.`);
  }
  return { architecture, codename: release.id === 'debian' ? release.codename : DEBIAN_ELSEWHERE };
}

/** os-release(5); Debian's testing has no version. */
export function parseOsRelease(text) {
  const field = (name) => new RegExp(`^${name}=["']?([^"'\n]*)["']?$`, 'm').exec(text)?.[1];
  const version = Number.parseFloat(field('VERSION_ID') ?? '');
  return {
    id: field('ID') ?? 'linux',
    codename: field('VERSION_CODENAME'),
    title: field('PRETTY_NAME') ?? 'this system',
    ...(Number.isNaN(version) ? {} : { version }),
  };
}

/** Runs only when something is going to be built; the server has a floor of its own. */
export function assertFreeSpace(directory, available = freeBytes(directory)) {
  const free = available / 1024 ** 3;
  if (free < FREE_GIB) {
    throw new SetupFailure(
      `Only ${free.toFixed(1)} GiB are free in ${directory} and set-up needs ${FREE_GIB}: free some space, or set PADDOCK_DATA_DIR to a larger disk.`,
    );
  }
}

function freeBytes(directory) {
  // Node before 18.15 cannot ask; a full disk then shows as the failure of a step.
  if (!fs.statfsSync) return Infinity;
  const { bavail, bsize } = fs.statfsSync(directory);
  return bavail * bsize;
}

function readText(path) {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
