import { createHash } from 'node:crypto';
import { access, mkdir, mkdtemp, readFile, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { debianArchives, readMachineSources } from './apt-sources.mjs';
import { CommandFailure, run } from './command.mjs';
import { SetupFailure } from './failure.mjs';
import { readJson, writeJson } from './files.mjs';
import { projectFiles } from './npm-package.mjs';
import { repository } from './places.mjs';
import { BUILD_PROGRAM, buildRootfs, guestSources, runInside } from './template-build.mjs';

const WORK_PREFIX = '.build-';

/** A template's directory: names of other makers' templates have a slash, `superserve/base`. */
export const directoryOf = (name) => name.replaceAll('/', '-');

/** The recipes, each after the one it starts from. */
export async function readRecipes(directory = join(repository, 'templates')) {
  const names = (await readdir(directory)).filter((name) => name.endsWith('.json')).sort();
  const recipes = await Promise.all(names.map(async (name) => JSON.parse(await readFile(join(directory, name), 'utf8'))));
  const ordered = [];
  const place = (recipe) => {
    if (ordered.includes(recipe)) return;
    if (recipe.from) place(recipes.find(({ name }) => name === recipe.from));
    ordered.push(recipe);
  };
  recipes.forEach(place);
  return ordered;
}

/**
 * The templates that are missing or were built from another recipe, program, release or mirror. Those whose recipe says `later` are left out
 * unless `later` is asked for: the server can start without them, and knows of them by their `building.json`. Those that say `on_demand` are left
 * out until they are asked for by name, and are then kept up to date like the others; `available.json` tells of them.
 * @returns {Promise<{title: string, work: () => Promise<void>}[]>} in the order they have to be built
 */
export async function planTemplates({ places, machine, env, recipes, later = true, wanted = [] }) {
  const { codename } = machine;
  const archives = debianArchives(await readMachineSources(), codename, env.PADDOCK_TEMPLATE_APT_MIRROR);
  const build = { machine, codename, archives: archives.machine, guestSources: guestSources(archives.guest, codename) };
  const program = await Promise.all(BUILD_PROGRAM.map((file) => readFile(file)));
  const digests = new Map();
  const missing = [];
  const known = recipes ?? (await readRecipes());
  const demanded = withAncestors(wanted, known);
  for (const recipe of known) {
    const parts = [
      JSON.stringify(recipe),
      digests.get(recipe.from) ?? '',
      ...program,
      ...(await pins(recipe)),
      codename,
      machine.architecture,
      build.guestSources,
    ];
    const digest = createHash('sha256');
    for (const part of parts) digest.update(`${part.length}\n`).update(part);
    digests.set(recipe.name, digest.digest('hex').slice(0, 32));
    if (await isCurrent(places, recipe.name, digests.get(recipe.name))) continue;
    if (recipe.on_demand && !demanded.has(recipe.name) && !(await wasBuilt(places, recipe.name))) {
      await announce(places, recipe, 'available.json');
      continue;
    }
    if ((recipe.later || recipe.on_demand) && !later) {
      await announce(places, recipe, 'building.json');
      continue;
    }
    missing.push({
      title: `Building the template ${recipe.name}`,
      work: () => buildTemplate({ places, recipe, digest: digests.get(recipe.name), build }),
    });
  }
  return missing;
}

/** What a killed build left behind. Only called with the lock held, so none of it is in use. */
export async function removeUnfinishedBuilds(places) {
  for (const name of await readdir(places.templates).catch(() => [])) {
    if (name.startsWith(WORK_PREFIX)) await rm(join(places.templates, name), { recursive: true, force: true });
  }
}

/** Tells the server what will be there, or can be. */
async function announce(places, { name, description, limits }, file) {
  const home = join(places.templates, directoryOf(name));
  await mkdir(home, { recursive: true, mode: 0o755 });
  const said = { name, description, limits };
  if (JSON.stringify(await readJson(join(home, file))) !== JSON.stringify(said)) await writeJson(join(home, file), said);
}

/** These names, and those of the templates they start from. */
function withAncestors(names, recipes) {
  const all = new Set();
  for (let name of names) {
    const known = recipes.find((recipe) => recipe.name === name);
    if (!known) throw new SetupFailure(`There is no built-in template "${name}": there is ${recipes.map((recipe) => recipe.name).join(', ')}.`);
    for (; name; name = recipes.find((recipe) => recipe.name === name)?.from) all.add(name);
  }
  return all;
}

async function pins({ npm_project: project }) {
  return project ? Promise.all(projectFiles(project).map((file) => readFile(file))) : [];
}

async function wasBuilt(places, name) {
  return (await readJson(join(places.templates, directoryOf(name), 'current.json'))) !== undefined;
}

async function isCurrent(places, name, digest) {
  const current = await readJson(join(places.templates, directoryOf(name), 'current.json'));
  return (
    current?.digest === digest &&
    (await access(join(current.path, 'etc/passwd')).then(
      () => true,
      () => false,
    ))
  );
}

async function buildTemplate({ places, recipe, digest, build }) {
  const home = join(places.templates, directoryOf(recipe.name));
  const target = join(home, digest);
  await mkdir(home, { recursive: true, mode: 0o755 });
  // An earlier build may be finished and only not be the current one: a recipe was changed and changed back.
  if (!(await readJson(join(target, 'manifest.json')))) {
    const work = await mkdtemp(join(places.templates, WORK_PREFIX));
    try {
      await buildInto(work, { places, recipe, digest, build });
      await rm(target, { recursive: true, force: true });
      await rename(join(work, 'result'), target);
    } catch (error) {
      if (!(error instanceof CommandFailure)) throw error;
      throw new SetupFailure(
        `The template ${recipe.name} could not be built (${error.message}): read the output above, then run the command again.`,
        { detail: error.output },
      );
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
  await writeJson(join(home, 'current.json'), {
    name: recipe.name,
    digest,
    path: join(target, 'rootfs'),
    manifest: join(target, 'manifest.json'),
  });
  for (const announced of ['building.json', 'available.json']) await rm(join(home, announced), { force: true });
}

async function buildInto(work, { places, recipe, digest, build }) {
  const result = join(work, 'result');
  const root = join(result, 'rootfs');
  await mkdir(result, { mode: 0o755 });
  const base = recipe.from ? await readJson(join(places.templates, directoryOf(recipe.from), 'current.json')) : undefined;
  const baseManifest = base ? await readJson(base.manifest) : undefined;
  await buildRootfs(recipe, { ...build, root, work, base: base?.path });
  const installed = await runInside(root, "dpkg-query --show --showformat='${Package} ${Version}\\n'");
  const [size] = (await run('du', ['--summarize', '--block-size=1', '--one-file-system', root])).split('\t');
  await writeJson(join(result, 'manifest.json'), {
    name: recipe.name,
    digest,
    description: recipe.description,
    from: recipe.from ?? null,
    limits: recipe.limits,
    env: { ...baseManifest?.env, ...recipe.env },
    architecture: build.machine.architecture,
    debian: {
      codename: build.codename,
      packages: Object.fromEntries(
        installed
          .trim()
          .split('\n')
          .map((line) => line.split(' ')),
      ),
    },
    npm: Object.fromEntries(
      (recipe.npm ?? [])
        .filter(({ architecture = build.machine.architecture }) => architecture === build.machine.architecture)
        .map((pin) => [pin.package, pin.version]),
    ),
    built_at: new Date().toISOString(),
    size_bytes: Number(size),
  });
  // The rename must not reach the disk before what it names.
  await run('sync', ['--file-system', work]);
}
