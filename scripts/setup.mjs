import { chmod, mkdir } from 'node:fs/promises';
import { CommandFailure } from './setup/command.mjs';
import { planDebianPackages, planTestPackages } from './setup/debian-packages.mjs';
import { SetupFailure } from './setup/failure.mjs';
import { planAgent, planUnpacker } from './setup/go-programs.mjs';
import { acquireLock } from './setup/lock.mjs';
import { assertFreeSpace, assertSuitable } from './setup/machine.mjs';
import { planNodeModules } from './setup/node-modules.mjs';
import { places as placesOf, repository } from './setup/places.mjs';
import { Progress } from './setup/progress.mjs';
import { planRunsc } from './setup/runsc.mjs';
import { planTemplates, removeUnfinishedBuilds } from './setup/templates.mjs';

/** In the order they depend on one another. Each returns what is still to do as `{title, work}[]`. */
const PLANS = [planDebianPackages, planTestPackages, planNodeModules, planRunsc, planAgent, planUnpacker, planTemplates];

/**
 * Makes this machine ready for the server. What is there already is left alone, so a second call only looks.
 *
 * @param {{env?: NodeJS.ProcessEnv, progress?: Progress, later?: boolean, tests?: boolean, wanted?: string[]}} [options]
 *   later: also what the server can start without; tests: also what only the tests need; wanted: built-in templates that are otherwise built on demand
 * @returns {Promise<{places: ReturnType<typeof placesOf>, done: string[]}>} done: titles of the steps that were needed
 * @throws {SetupFailure} with the sentence for the user
 */
export async function setup({ env = process.env, progress = new Progress(), later = true, tests = false, wanted = [] } = {}) {
  const machine = assertSuitable();
  const places = placesOf(env);
  await makeDirectories(places);
  const context = { machine, places, env, later, tests, wanted, note: (line) => progress.note(line) };
  if (await nothingToDo(context)) return { places, done: progress.steps };

  const releases = [acquireLock(repository, context.note), acquireLock(places.artefacts, context.note)];
  try {
    await removeUnfinishedBuilds(places);
    assertFreeSpace(places.artefacts);
    for (const plan of PLANS) {
      // Asked again: whoever held the lock before may have done it.
      for (const { title, work } of await plan(context)) await progress.step(title, work);
    }
  } catch (error) {
    if (error instanceof CommandFailure)
      throw new SetupFailure(`${error.message}: read its output above, then run the command again.`, {
        detail: error.output,
        cause: error,
      });
    throw error;
  } finally {
    for (const release of releases) release();
  }
  progress.note(`Set up in ${places.artefacts}.`);
  return { places, done: progress.steps };
}

async function nothingToDo(context) {
  for (const plan of PLANS) if ((await plan(context)).length > 0) return false;
  return true;
}

/** Only root may enter: templates, state and keys of the sandboxes lie below. */
async function makeDirectories({ data, artefacts, templates }) {
  for (const directory of new Set([data, artefacts])) {
    const created = await mkdir(directory, { recursive: true, mode: 0o700 });
    if (created) await chmod(directory, 0o700);
  }
  // Root file systems have set-uid programs, which a local user must not reach even if the directories above are wider.
  await mkdir(templates, { recursive: true, mode: 0o700 });
  await chmod(templates, 0o700);
}
