import { createHash } from 'node:crypto';
import { access, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandFailure } from './command.mjs';
import { SetupFailure } from './failure.mjs';
import { readJson } from './files.mjs';
import { runNpm } from './npm-package.mjs';
import { pinnedNode, repository } from './places.mjs';

/** `npm ci` when node_modules is not what package-lock.json says. */
export async function planNodeModules({ root = repository } = {}) {
  const lock = await readFile(join(root, 'package-lock.json'));
  const sha256 = createHash('sha256').update(lock).digest('hex');
  const stamp = join(root, 'node_modules', '.paddock-lock-sha256');
  const nodePresent = await access(pinnedNode(root)).then(
    () => true,
    () => false,
  );
  if (nodePresent) {
    if ((await readFile(stamp, 'utf8').catch(() => '')) === sha256) return [];
    // Somebody ran npm by hand and all is well: taking node_modules away under a running server would not be.
    if (agrees(JSON.parse(lock), await readJson(join(root, 'node_modules', '.package-lock.json')))) {
      await writeFile(stamp, sha256).catch(() => {});
      return [];
    }
  }
  return [{ title: 'Installing npm packages', work: () => install(root, stamp, sha256) }];
}

/** Whether npm's own record of what it installed has every package of the lock file, those for other processors aside. */
export function agrees(lock, installed) {
  if (!installed?.packages) return false;
  const wanted = Object.entries(lock.packages).filter(([path]) => path !== '');
  const complete = wanted.every(([path, { version, integrity, optional }]) => {
    const found = installed.packages[path];
    return found ? found.version === version && found.integrity === integrity : optional === true;
  });
  return complete && Object.keys(installed.packages).every((path) => path in lock.packages);
}

async function install(root, stamp, sha256) {
  // No package needs its install script (binaries come as packages), and an older npm would compile what has a binding.gyp.
  try {
    await runNpm(
      [
        'ci',
        '--no-audit',
        '--no-fund',
        '--ignore-scripts',
        '--no-progress',
        '--loglevel=error',
        '--include=dev',
        '--include=optional',
      ],
      { cwd: root },
    );
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    throw new SetupFailure('npm ci failed: read its output above, and check that the npm registry can be reached (npm ping).', {
      detail: withoutUsage(error.output),
      cause: error,
    });
  }
  if (
    !(await access(pinnedNode(root)).then(
      () => true,
      () => false,
    ))
  ) {
    throw new SetupFailure(
      `npm ci did not bring ${pinnedNode(root)}: check that the registry has the package and that npm's settings do not leave out optional packages.`,
    );
  }
  await writeFile(stamp, sha256);
}

/** npm prints all its options behind some errors, far longer than the error. */
function withoutUsage(output) {
  return output.replace(/\nnpm (?:error|ERR!)\s*\n(?:npm (?:error|ERR!) )?Clean install a project[\s\S]*/, '');
}
