import { createHash } from 'node:crypto';
import { access, chmod, mkdir, readFile, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandFailure, findCommand, run } from './command.mjs';
import { SetupFailure } from './failure.mjs';
import { readJson, writeJson } from './files.mjs';
import { repository } from './places.mjs';

/** Go's settings: a static binary from the sources in the tree, nothing fetched. Also for their tests. */
export function goEnvironment(places) {
  return {
    CGO_ENABLED: '0',
    GOFLAGS: '-mod=mod',
    GOPROXY: 'off',
    GOSUMDB: 'off',
    GOTOOLCHAIN: 'local',
    GOWORK: 'off',
    GOCACHE: join(places.cache, 'go-build'),
    GOPATH: join(places.cache, 'go'),
  };
}

/** Process 1 of every sandbox. */
export function planAgent({ places, sources = join(repository, 'agent') }) {
  return planProgram({ name: 'agent', sources, home: places.agent, places });
}

/** What applies the layers of container images. */
export function planUnpacker({ places, sources = join(repository, 'unpacker') }) {
  return planProgram({ name: 'unpacker', sources, home: places.unpacker, places });
}

/** Builds a program when its sources or the Go version changed. */
async function planProgram(program) {
  const { name, sources, home } = program;
  const step = { title: `Building the ${name}`, work: () => build(program) };
  // Go is among the packages of an earlier step; without it there can be no binary of this Go either.
  if (!findCommand('go')) return [step];
  const current = await readJson(join(home, 'current.json'));
  const sha = await sourcesHash(sources);
  if (
    current?.sha === sha &&
    (await access(current.path).then(
      () => true,
      () => false,
    ))
  )
    return [];
  return [step];
}

async function build({ name, sources, home, places }) {
  const sha = await sourcesHash(sources);
  const version = sha.slice(0, 12);
  const directory = join(home, sha);
  const path = join(directory, name);
  await mkdir(directory, { recursive: true, mode: 0o755 });
  await mkdir(places.cache, { recursive: true, mode: 0o700 });
  const beside = join(directory, `.${name}-${process.pid}`);
  try {
    const args = ['build', '-trimpath', '-ldflags', `-s -w -X main.version=${version}`, '-o', beside, '.'];
    await run('go', args, { cwd: sources, env: goEnvironment(places) });
    await chmod(beside, 0o755);
    await rename(beside, path);
  } catch (error) {
    if (!(error instanceof CommandFailure)) throw error;
    throw new SetupFailure(`The ${name} in ${sources} does not build: correct what Go says above.`, {
      detail: error.output,
      cause: error,
    });
  } finally {
    await rm(beside, { force: true });
  }
  await writeJson(join(home, 'current.json'), { path, sha, version });
}

/** One hash over the sources (tests aside) and the Go that compiles them. */
export async function sourcesHash(sources) {
  const hash = createHash('sha256').update(await run('go', ['version'], { env: { GOTOOLCHAIN: 'local' } }));
  for (const name of await listSources(sources)) {
    const content = await readFile(join(sources, name));
    hash.update(`${name}\n${content.length}\n`).update(content);
  }
  return hash.digest('hex');
}

async function listSources(directory, prefix = '') {
  const found = [];
  for (const entry of await readdir(join(directory, prefix), { withFileTypes: true })) {
    const name = prefix ? `${prefix}/${entry.name}` : entry.name;
    if (entry.name.startsWith('.') || entry.name === 'testdata') continue;
    if (entry.isDirectory()) found.push(...(await listSources(directory, name)));
    else if (/\.(go|s)$|^go\.(mod|sum)$/.test(entry.name) && !entry.name.endsWith('_test.go')) found.push(name);
  }
  return found.sort();
}
