import { chmod, copyFile, mkdir, mkdtemp, rename, rm, stat, access, readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { debianArchives, readMachineSources, sourceLine } from './apt-sources.mjs';
import { CommandFailure, run } from './command.mjs';
import { SetupFailure } from './failure.mjs';
import { hashFile, readJson, writeJson } from './files.mjs';
import { PrivateApt } from './private-apt.mjs';

const OWN_BINARY = 'set PADDOCK_RUNSC to a runsc binary';

/** Nothing to do when `<artefacts>/runsc/current.json` is what the settings ask for. */
export async function planRunsc({ places, machine, env }) {
  const current = await readJson(join(places.runsc, 'current.json'));
  const present = current && (await exists(current.path));
  if (env.PADDOCK_RUNSC) {
    const path = resolve(env.PADDOCK_RUNSC);
    const file = await stat(path).catch(() => undefined);
    if (!file?.isFile())
      throw new SetupFailure(`PADDOCK_RUNSC names ${path}, which is not a file: correct the path or unset it.`);
    const source = { kind: 'file', path, size: file.size, modified_ms: Math.trunc(file.mtimeMs) };
    if (present && JSON.stringify(current.source) === JSON.stringify(source)) return [];
    return [{ title: `Taking over runsc from ${path}`, work: () => installFile(places, path, source) }];
  }
  if (present && current.source?.kind === 'debian') return [];
  return [{ title: 'Fetching runsc (gVisor) from the Debian archive', work: () => installFromDebian(places, machine, env) }];
}

async function installFile(places, path, source) {
  const { sha256, version } = await adopt(places, path);
  await writeJson(join(places.runsc, 'current.json'), current(places, sha256, version, source));
}

/** Stable's own runsc may be too old (no systrap), so backports come first, as a package unpacked but never installed. */
async function installFromDebian(places, machine, env) {
  const { codename } = machine;
  const { archive } = debianArchives(await readMachineSources(), codename, env.PADDOCK_TEMPLATE_APT_MIRROR).machine;
  await mkdir(places.cache, { recursive: true, mode: 0o700 });
  const work = await mkdtemp(join(places.cache, 'runsc-'));
  let detail = '';
  try {
    for (const suite of [`${codename}-backports`, codename]) {
      try {
        const { binary, packageVersion } = await fetchPackage(join(work, suite), archive, suite);
        const { sha256, version } = await adopt(places, binary);
        await writeJson(
          join(places.runsc, 'current.json'),
          current(places, sha256, version, { kind: 'debian', suite, package_version: packageVersion }),
        );
        return;
      } catch (error) {
        if (!(error instanceof CommandFailure || error instanceof SetupFailure)) throw error;
        detail = `${detail}\n${suite}: ${error.output ?? error.message}`.trim();
      }
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  throw new SetupFailure(
    `No usable runsc came from ${archive.uri}: check that the mirror can be reached and has ${codename}-backports, or ${OWN_BINARY}.`,
    { detail },
  );
}

async function fetchPackage(directory, archive, suite) {
  const apt = new PrivateApt(directory);
  await apt.configure([sourceLine(archive, suite)]);
  await apt.run('apt-get', ['-qq', '--error-on=any', 'update']);
  await apt.run('apt-get', ['-qq', 'download', 'runsc'], { cwd: directory });
  const file = (await readdir(directory)).find((name) => name.endsWith('.deb'));
  const root = join(directory, 'root');
  await run('dpkg', ['--extract', join(directory, file), root]);
  const packageVersion = (await run('dpkg-deb', ['--field', join(directory, file), 'Version'])).trim();
  return { binary: join(root, 'usr/bin/runsc'), packageVersion };
}

/** Puts a binary under its hash; builds are kept side by side because a checkpoint restores only with the build that wrote it. */
async function adopt(places, path) {
  await mkdir(places.runsc, { recursive: true, mode: 0o755 });
  const beside = join(places.runsc, `.incoming-${process.pid}`);
  try {
    await copyFile(path, beside);
    await chmod(beside, 0o755);
    const sha256 = await hashFile(beside);
    const version = await versionOf(beside, path);
    await mkdir(join(places.runsc, sha256), { recursive: true, mode: 0o755 });
    await rename(beside, join(places.runsc, sha256, 'runsc'));
    return { sha256, version };
  } finally {
    await rm(beside, { force: true });
  }
}

async function versionOf(binary, origin) {
  try {
    const version = /^runsc version (\S+)/.exec(await run(binary, ['--version']))?.[1];
    // runsc prints its flags to standard error.
    const flags = await run(binary, ['flags'], { output: 'both' });
    if (version && flags.includes('systrap')) return version;
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
  }
  throw new SetupFailure(`${origin} is not a runsc with the systrap platform: ${OWN_BINARY} of 2023 or newer.`);
}

function current(places, sha256, version, source) {
  return { path: join(places.runsc, sha256, 'runsc'), sha256, version, source };
}

const exists = (path) =>
  access(path).then(
    () => true,
    () => false,
  );
