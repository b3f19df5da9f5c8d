import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { PaddockError } from '../core/errors.ts';
import type { TeamId } from '../core/ids.ts';
import { parseSpec, specHash } from '../core/templates/spec.ts';
import { defaultTemplateSettings } from '../core/templates/settings.ts';
import type { Artefact, ArtefactId, BuildId, OwnTemplate, TemplateBuild, TemplateId } from '../core/templates/template.ts';
import { openStore, type SqlStore } from './store.ts';

interface Place extends AsyncDisposable {
  readonly directory: string;
  readonly store: SqlStore;
  readonly teamId: TeamId;
}

async function place(): Promise<Place> {
  const directory = mkdtempSync(join(tmpdir(), 'paddock-store-'));
  const store = await openStore({ database: join(directory, 'paddock.db'), masterKey: join(directory, 'master.key') });
  return {
    directory, store, teamId: await store.keys.defaultTeam(),
    async [Symbol.asyncDispose]() {
      await store.close();
      rmSync(directory, { recursive: true });
    },
  };
}

function template(teamId: TeamId, name: string): [OwnTemplate, TemplateBuild] {
  const spec = parseSpec({ from: 'base', steps: [{ kind: 'env', key: 'TOKEN', value: 'very secret indeed' }] }, defaultTemplateSettings);
  const [id, buildId] = [randomUUID() as TemplateId, randomUUID() as BuildId];
  const own: OwnTemplate = { id, teamId, name, status: 'building', spec, specHash: specHash(spec), errorMessage: null, artefactId: null, latestBuildId: buildId, createdAt: 5, builtAt: null, sizeBytes: null };
  return [own, build(own, buildId)];
}

function build(own: OwnTemplate, id = randomUUID() as BuildId): TemplateBuild {
  return { id, templateId: own.id, teamId: own.teamId, status: 'pending', specHash: own.specHash, errorMessage: null, createdAt: 6, startedAt: null, finalizedAt: null };
}

function artefact(own: OwnTemplate): Artefact {
  return {
    id: randomUUID() as ArtefactId, templateId: own.id, teamId: own.teamId, digest: 'd'.repeat(64), root: { base: 'b', layers: ['l'] }, limits: { vcpus: 1, memoryMb: 512, diskMb: 1024, pids: 10 },
    env: { TOKEN: 'very secret indeed' }, user: 'app', sudo: false, workdir: '/w', sizeBytes: 7, specHash: own.specHash, start: null, createdAt: 8,
  };
}

it('a template comes back as it was put in, and its values are sealed', async () => {
  await using it = await place();
  const [own, first] = template(it.teamId, 'mine');
  await it.store.templates.insert(own, first);
  assert.deepEqual(await it.store.templates.find(it.teamId, own.id), own);
  assert.deepEqual(await it.store.templates.findBuild(it.teamId, first.id), first);
  const made = artefact(own);
  assert.ok(await it.store.templates.finishReady(first.id, made, 9));
  assert.deepEqual(await it.store.templates.artefact(made.id), made);
  assert.deepEqual(await it.store.templates.find(it.teamId, own.id), { ...own, status: 'ready', artefactId: made.id, builtAt: 9, sizeBytes: 7 });
  await it.store.close();
  assert.ok(!readFileSync(join(it.directory, 'paddock.db')).includes('very secret indeed'));
});

it('a name is unique in its team only', async () => {
  await using it = await place();
  const [own, first] = template(it.teamId, 'mine');
  await it.store.templates.insert(own, first);
  await assert.rejects(it.store.templates.insert(...template(it.teamId, 'mine')), (error: unknown) => error instanceof PaddockError && error.code === 'conflict');
  assert.equal((await it.store.templates.list(it.teamId)).length, 1);
  assert.equal((await it.store.templates.list('other' as TeamId)).length, 0);
  assert.equal(await it.store.templates.find('other' as TeamId, own.id), null);
  assert.equal(await it.store.templates.findBuild('other' as TeamId, first.id), null);
  assert.equal(await it.store.templates.remove('other' as TeamId, own.id), false);
});

it('a build ends once, and who comes second changes nothing', async () => {
  await using it = await place();
  const [own, first] = template(it.teamId, 'mine');
  await it.store.templates.insert(own, first);
  assert.equal(await it.store.templates.remove(it.teamId, own.id), false); // it is being built
  assert.ok(await it.store.templates.finishFailed(first.id, 'cancelled', 'cancelled: asked for', 9));
  assert.equal(await it.store.templates.finishReady(first.id, artefact(own), 10), false);
  assert.equal(await it.store.templates.finishFailed(first.id, 'failed', 'too late', 10), false);
  assert.equal(await it.store.templates.moveBuild(first.id, ['pending'], 'building', 10), null);
  assert.equal((await it.store.templates.artefacts()).length, 0);
  assert.deepEqual([(await it.store.templates.find(it.teamId, own.id))?.status, (await it.store.templates.findBuild(it.teamId, first.id))?.status], ['failed', 'cancelled']);
  // Another one: the template is building again; a second at once is the same.
  const second = build(own);
  assert.deepEqual(await it.store.templates.insertBuild(second), { build: second, inserted: true });
  assert.deepEqual(await it.store.templates.insertBuild(build(own)), { build: second, inserted: false });
  const again = await it.store.templates.find(it.teamId, own.id);
  assert.deepEqual([again?.status, again?.errorMessage, again?.latestBuildId], ['building', null, second.id]);
  await it.store.templates.finishReady(second.id, artefact(own), 12);
  const third = build(own);
  await it.store.templates.insertBuild(third);
  assert.equal((await it.store.templates.find(it.teamId, own.id))?.status, 'ready');
  await it.store.templates.finishFailed(third.id, 'failed', 'step_failed: no', 13);
  assert.equal((await it.store.templates.find(it.teamId, own.id))?.status, 'ready');
  assert.equal((await it.store.templates.builds(own.id, 2)).length, 2);
});

it('a template goes with its builds and logs; its artefact stays', async () => {
  await using it = await place();
  const [own, first] = template(it.teamId, 'mine');
  await it.store.templates.insert(own, first);
  const lines = Array.from({ length: 250 }, (_, i) => ({ seq: i + 1, at: i, stream: 'stdout' as const, text: `line ${i + 1}` }));
  await it.store.buildLogs.append(first.id, lines, 200);
  assert.deepEqual((await it.store.buildLogs.read(first.id, 0, 1000)).map(({ seq }) => seq), lines.slice(50).map(({ seq }) => seq));
  assert.deepEqual((await it.store.buildLogs.read(first.id, 100, 3)).map(({ text }) => text), ['line 101', 'line 102', 'line 103']);
  const made = artefact(own);
  await it.store.templates.finishReady(first.id, made, 9);
  assert.deepEqual([...(await it.store.templates.currentArtefacts())], [made.id]);
  assert.ok(await it.store.templates.remove(it.teamId, own.id));
  assert.equal((await it.store.buildLogs.read(first.id, 0, 1000)).length, 0);
  await it.store.buildLogs.append(first.id, [{ seq: 251, at: 0, stream: 'system', text: 'too late' }], 200); // its build is gone
  assert.equal((await it.store.templates.artefacts()).length, 1);
  assert.equal((await it.store.templates.currentArtefacts()).size, 0);
});

it('layers are remembered for a team until they have not been used for long', async () => {
  await using it = await place();
  await it.store.layerCache.put(it.teamId, 'k1', 'a', 1);
  await it.store.layerCache.put(it.teamId, 'k2', 'b', 1);
  await it.store.layerCache.put(it.teamId, 'k2', 'c', 2);
  assert.equal(await it.store.layerCache.find('other' as TeamId, 'k1', 9), null);
  assert.equal(await it.store.layerCache.find(it.teamId, 'k1', 9), 'a');
  assert.deepEqual([...(await it.store.layerCache.layers())].sort(), ['a', 'c']);
  await it.store.layerCache.purge(5);
  assert.deepEqual([...(await it.store.layerCache.layers())], ['a']);
});
