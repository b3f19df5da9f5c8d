import { cp, mkdir, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { CommandFailure, run } from './command.mjs';
import { SetupFailure } from './failure.mjs';
import { hashFile } from './files.mjs';
import { repository } from './places.mjs';

/** Files that pin the npm packages of a template. */
export const projectFiles = (project) => ['package.json', 'package-lock.json'].map((name) => join(repository, 'templates/npm', project, name));

/** npm as the user called it (`npm start` says so), else the one on the path. */
export function runNpm(args, options = {}) {
  const script = process.env.npm_execpath;
  const own = script?.endsWith('.js') ? [process.execPath, [script, ...args]] : ['npm', args];
  return run(own[0], own[1], { cwd: repository, ...options });
}

/**
 * Fetches one npm package from the user's registry, checks it against the pinned hash and unpacks it below `directory`.
 *
 * @param {{package: string, version: string, integrity: string}} pin
 * @param {string} directory empty
 * @returns {Promise<string>} the directory of the unpacked package
 */
export async function fetchNpmPackage(pin, directory) {
  const name = `${pin.package}@${pin.version}`;
  try {
    await runNpm(['pack', name, '--silent', '--ignore-scripts', '--pack-destination', directory]);
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    throw new SetupFailure(`npm could not fetch ${name}: check that the npm registry can be reached (npm ping).`, {
      detail: error.output,
    });
  }
  const archive = join(directory, (await readdir(directory)).find((file) => file.endsWith('.tgz')) ?? '');
  const found = `sha512-${await hashFile(archive, 'sha512', 'base64')}`;
  if (found !== pin.integrity) {
    throw new SetupFailure(
      `${name} from the npm registry has another hash (${found}) than its template pins: do not use this registry, or correct the pin.`,
    );
  }
  await run('tar', ['--extract', '--gzip', '--no-same-owner', '--file', archive, '--directory', directory]);
  return join(directory, 'package');
}

/** Installs what a project's lock file pins, without running any of it, into the `node_modules` at `target`. */
export async function installNpmProject(project, work, target) {
  const directory = join(work, 'npm-project');
  await mkdir(directory, { recursive: true });
  for (const file of projectFiles(project)) await cp(file, join(directory, basename(file)));
  try {
    await runNpm(['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--no-bin-links', '--loglevel=error'], { cwd: directory });
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    throw new SetupFailure(`npm could not install the packages of the template ${project}: check that the npm registry can be reached (npm ping).`, {
      detail: error.output,
    });
  }
  await mkdir(target, { recursive: true });
  await run('cp', ['--recursive', '--no-target-directory', join(directory, 'node_modules'), target]);
}
