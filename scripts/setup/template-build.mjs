import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { sourceLine } from './apt-sources.mjs';
import { run, runContained } from './command.mjs';
import { fetchNpmPackage, installNpmProject } from './npm-package.mjs';
import { machineAcquireSettings, PrivateApt } from './private-apt.mjs';

/** Everything that shapes a root file system; part of every template's digest. */
export const BUILD_PROGRAM = ['template-build.mjs', 'template-finish.sh'].map((name) => new URL(name, import.meta.url));

/**
 * @typedef {object} Recipe  a file of templates/
 * @property {string} name
 * @property {string} description
 * @property {string} [from]  the template it starts from; without it, from the Debian archive
 * @property {{vcpus: number, memory_mb: number, disk_mb: number, pids: number}} limits  of a sandbox made from it
 * @property {Record<string, string>} [env]  of every process in it, on top of that of `from`
 * @property {string[]} [packages]  Debian packages, without what they only recommend
 * @property {{package: string, version: string, integrity: string, architecture?: string, copy: Record<string, string>}[]} [npm]
 *   packages of the npm registry; `copy` maps a path in the package to a path in the root file system
 * @property {string} [npm_project]  a directory below templates/npm: what its package-lock.json pins is put into /usr/local/lib/node_modules
 * @property {Record<string, string>} [links]  symbolic links: path → target
 * @property {string[]} [steps]  shell lines run inside as root, without network
 * @property {string[]} [checks]  shell lines that must succeed inside, or the build fails
 * @property {boolean} [later]  built behind a server that has started already
 * @property {boolean} [on_demand]  built when somebody asks for it first
 */

/**
 * Builds a root file system at `root`.
 *
 * @param {Recipe} recipe
 * @param {{root: string, work: string, base?: string, machine: {architecture: string}, codename: string,
 *   archives: {archive: object, security?: object}, guestSources: string}} build
 *   base: root file system of `from`; guestSources: the sandbox's /etc/apt/sources.list.d/debian.sources
 */
export async function buildRootfs(recipe, build) {
  const { root, base } = build;
  if (base === undefined) await bootstrap(recipe, build);
  else {
    await run('cp', ['--archive', '--reflink=auto', base, root]);
    if (recipe.packages?.length) await installPackages(recipe.packages, build);
  }
  for (const [index, pin] of (recipe.npm ?? []).entries()) {
    if (pin.architecture && pin.architecture !== build.machine.architecture) continue;
    const directory = join(build.work, `npm-${index}`);
    await mkdir(directory, { recursive: true });
    const unpacked = await fetchNpmPackage(pin, directory);
    for (const [from, to] of Object.entries(pin.copy)) {
      await mkdir(dirname(join(root, to)), { recursive: true });
      await run('cp', ['--recursive', '--no-target-directory', join(unpacked, from), join(root, to)]);
    }
  }
  if (recipe.npm_project) await installNpmProject(recipe.npm_project, build.work, join(root, 'usr/local/lib/node_modules'));
  const links = Object.entries(recipe.links ?? {}).map(([path, target]) => `ln -sfn '${target}' '${path}'`);
  await writeFile(join(root, 'etc/apt/sources.list.d/debian.sources'), build.guestSources, { mode: 0o644 });
  await runInside(root, ['set -eu', ...links, ...(recipe.steps ?? [])].join('\n'));
  await runInside(root, await readFile(BUILD_PROGRAM[1], 'utf8'));
  await chmod(root, 0o755);
  for (const check of recipe.checks ?? []) await runInside(root, check);
  await runInside(root, await readFile(BUILD_PROGRAM[1], 'utf8'));
}

/** Release, updates and security fixes. */
export function sourceLines({ archive, security }, codename) {
  return [
    sourceLine(archive, codename),
    sourceLine(archive, `${codename}-updates`),
    ...(security ? [sourceLine(security, `${codename}-security`)] : []),
  ];
}

/** What a sandbox's own apt reads. The keyring is the one in the image, whatever the machine calls its own. */
export function guestSources({ archive, security }, codename) {
  const stanza = (uri, suites) =>
    `Types: deb\nURIs: ${uri}\nSuites: ${suites}\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n`;
  const stanzas = [stanza(archive.uri, `${codename} ${codename}-updates`)];
  if (security) stanzas.push(stanza(security.uri, `${codename}-security`));
  return stanzas.join('\n');
}

async function bootstrap(recipe, { root, machine, codename, archives }) {
  const settings = [
    'APT::Sandbox::User "root";',
    'Dir::Etc::netrc "/etc/apt/auth.conf";',
    'Acquire::Languages "none";',
    ...(await machineAcquireSettings()),
  ];
  const unwanted = [
    'path-exclude=/usr/share/man/*',
    'path-exclude=/usr/share/locale/*',
    'path-exclude=/usr/share/doc/*',
    'path-include=/usr/share/doc/*/copyright',
  ];
  await runContained('mmdebstrap', [
    '--quiet',
    '--mode=root',
    '--variant=minbase',
    '--format=directory',
    `--architectures=${machine.architecture}`,
    `--include=${(recipe.packages ?? []).join(',')}`,
    ...settings.map((setting) => `--aptopt=${setting}`),
    ...unwanted.map((option) => `--dpkgopt=${option}`),
    codename,
    root,
    ...sourceLines(archives, codename),
  ]);
  await run('rm', ['-f', join(root, 'etc/apt/sources.list')]);
}

/** The machine's apt fetches, so the network is reached as the machine reaches it; dpkg runs inside. */
async function installPackages(packages, { root, work, codename, archives }) {
  const apt = new PrivateApt(join(work, 'apt'));
  await apt.configure(sourceLines(archives, codename), [
    `Dir::State::status "${root}/var/lib/dpkg/status";`,
    `Dir::State::extended_states "${root}/var/lib/apt/extended_states";`,
    `Dir::Cache::archives "${root}/var/cache/apt/archives";`,
    `DPkg::Chroot-Directory "${root}";`,
  ]);
  await apt.run('apt-get', ['-qq', '--error-on=any', 'update']);
  const script = 'mount -t proc proc "$0/proc" && exec apt-get -qq -y install "$@"';
  await runContained('sh', ['-c', script, root, ...packages], { env: apt.environment });
}

/** Runs a shell script as root inside the root file system, cut off from the network. */
export function runInside(root, script) {
  const enter =
    'mount -t proc proc "$0/proc" && exec chroot "$0" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -e';
  return runContained('unshare', ['--net', 'sh', '-c', enter, root], { input: script });
}
