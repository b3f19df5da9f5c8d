import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandFailure, run } from './command.mjs';
import { SetupFailure } from './failure.mjs';
import { hashFile } from './files.mjs';
import { repository } from './places.mjs';

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
