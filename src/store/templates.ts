import type { Kysely } from 'kysely';
import { PaddockError } from '../core/errors.ts';
import type { TeamId } from '../core/ids.ts';
import { crashes } from '../core/sandbox.ts';
import type { Surroundings } from '../core/templates/plan.ts';
import type { TemplateSpec } from '../core/templates/spec.ts';
import { buildsInFlight, type Artefact, type ArtefactId, type BuildId, type BuildStatus, type OwnTemplate, type TemplateBuild, type TemplateId, type TemplateStatus, type TemplateStore } from '../core/templates/template.ts';
import { frozenJson, stored } from './fault.ts';
import type { Schema, TemplateArtefactRow, TemplateBuildRow, TemplateRow } from './schema.ts';
import type { Sealer } from './sealer.ts';

export class SqlTemplates implements TemplateStore {
  readonly #db: Kysely<Schema>;
  readonly #sealer: Sealer;

  constructor(db: Kysely<Schema>, sealer: Sealer) {
    this.#db = db;
    this.#sealer = sealer;
  }

  async insert(template: OwnTemplate, build: TemplateBuild): Promise<void> {
    const row: TemplateRow = {
      id: template.id,
      team_id: template.teamId,
      name: template.name,
      status: template.status,
      spec_sealed: this.#sealer.seal(specOf(template.id), JSON.stringify(template.spec)),
      spec_hash: template.specHash,
      error_message: template.errorMessage,
      artefact_id: template.artefactId,
      latest_build_id: template.latestBuildId,
      created_at: template.createdAt,
      built_at: template.builtAt,
      size_bytes: template.sizeBytes,
    };
    await stored('insert the template', () =>
      this.#db.transaction().execute(async (work) => {
        await work.insertInto('templates').values(row).execute();
        await work.insertInto('template_builds').values(buildRow(build)).execute();
      }),
    );
  }

  async find(teamId: TeamId, id: TemplateId): Promise<OwnTemplate | null> {
    const row = await stored('read the template', () => this.#db.selectFrom('templates').selectAll().where('team_id', '=', teamId).where('id', '=', id).executeTakeFirst());
    return row === undefined ? null : this.#fromRow(row);
  }

  async findByName(teamId: TeamId, name: string): Promise<OwnTemplate | null> {
    const row = await stored('read the template', () => this.#db.selectFrom('templates').selectAll().where('team_id', '=', teamId).where('name', '=', name).executeTakeFirst());
    return row === undefined ? null : this.#fromRow(row);
  }

  async list(teamId: TeamId): Promise<readonly OwnTemplate[]> {
    const rows = await stored('list the templates', () => this.#db.selectFrom('templates').selectAll().where('team_id', '=', teamId).orderBy('created_at', 'desc').orderBy('id', 'desc').execute());
    return rows.map((row) => this.#fromRow(row));
  }

  async count(teamId: TeamId): Promise<number> {
    const { count } = await stored('count the templates', () => this.#db.selectFrom('templates').where('team_id', '=', teamId).select((e) => e.fn.countAll<number>().as('count')).executeTakeFirstOrThrow());
    return Number(count);
  }

  async remove(teamId: TeamId, id: TemplateId): Promise<boolean> {
    const { numDeletedRows } = await stored('remove the template', () =>
      this.#db
        .deleteFrom('templates')
        .where('team_id', '=', teamId)
        .where('id', '=', id)
        .where((e) => e.not(e.exists(e.selectFrom('template_builds').select('template_builds.id').where('template_id', '=', id).where('template_builds.status', 'in', buildsInFlight))))
        .executeTakeFirst(),
    );
    return numDeletedRows > 0n;
  }

  async insertBuild(build: TemplateBuild): Promise<{ build: TemplateBuild; inserted: boolean }> {
    return stored('insert the build', () =>
      this.#db.transaction().execute(async (work) => {
        const inFlight = await work.selectFrom('template_builds').selectAll().where('template_id', '=', build.templateId).where('spec_hash', '=', build.specHash).where('status', 'in', buildsInFlight).executeTakeFirst();
        if (inFlight !== undefined) return { build: buildOf(inFlight), inserted: false };
        const updated = await work
          .updateTable('templates')
          .set((e) => ({ latest_build_id: build.id, status: e.case().when('artefact_id', 'is', null).then('building').else('ready').end(), error_message: null }))
          .where('id', '=', build.templateId)
          .executeTakeFirst();
        if (updated.numUpdatedRows === 0n) throw new PaddockError('not_found', 'the template has been deleted');
        await work.insertInto('template_builds').values(buildRow(build)).execute();
        return { build, inserted: true };
      }),
    );
  }

  async findBuild(teamId: TeamId, id: BuildId): Promise<TemplateBuild | null> {
    const row = await stored('read the build', () => this.#db.selectFrom('template_builds').selectAll().where('team_id', '=', teamId).where('id', '=', id).executeTakeFirst());
    return row === undefined ? null : buildOf(row);
  }

  async builds(templateId: TemplateId, limit: number): Promise<readonly TemplateBuild[]> {
    const rows = await stored('list the builds', () => this.#db.selectFrom('template_builds').selectAll().where('template_id', '=', templateId).orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute());
    return rows.map(buildOf);
  }

  async unfinishedBuilds(): Promise<readonly TemplateBuild[]> {
    const rows = await stored('read the builds', () => this.#db.selectFrom('template_builds').selectAll().where('status', 'in', buildsInFlight).execute());
    return rows.map(buildOf);
  }

  async moveBuild(id: BuildId, from: readonly BuildStatus[], to: 'building' | 'snapshotting', at: number): Promise<TemplateBuild | null> {
    const row = await stored('update the build', () =>
      this.#db.updateTable('template_builds').set((e) => ({ status: to, started_at: e.fn.coalesce('started_at', e.val(at)) })).where('id', '=', id).where('status', 'in', from).returningAll().executeTakeFirst(),
    );
    return row === undefined ? null : buildOf(row);
  }

  async finishReady(id: BuildId, artefact: Artefact, at: number): Promise<boolean> {
    return stored('finish the build', () =>
      this.#db.transaction().execute(async (work) => {
        const build = await work.updateTable('template_builds').set({ status: 'ready', finalized_at: at }).where('id', '=', id).where('status', 'in', buildsInFlight).returning('template_id').executeTakeFirst();
        if (build === undefined) return false;
        if ((await work.selectFrom('template_artefacts').select('id').where('id', '=', artefact.id).executeTakeFirst()) === undefined) await work.insertInto('template_artefacts').values(this.#artefactRow(artefact)).execute();
        await work.updateTable('templates').set({ status: 'ready', artefact_id: artefact.id, built_at: at, size_bytes: artefact.sizeBytes, error_message: null }).where('id', '=', build.template_id).execute();
        return true;
      }),
    );
  }

  async finishFailed(id: BuildId, status: 'failed' | 'cancelled', errorMessage: string, at: number): Promise<boolean> {
    return stored('finish the build', () =>
      this.#db.transaction().execute(async (work) => {
        const build = await work.updateTable('template_builds').set({ status, error_message: errorMessage, finalized_at: at }).where('id', '=', id).where('status', 'in', buildsInFlight).returning('template_id').executeTakeFirst();
        if (build === undefined) return false;
        await work.updateTable('templates').set({ status: 'failed', error_message: errorMessage }).where('id', '=', build.template_id).where('artefact_id', 'is', null).execute();
        return true;
      }),
    );
  }

  async artefact(id: ArtefactId): Promise<Artefact | null> {
    const row = await stored('read the artefact', () => this.#db.selectFrom('template_artefacts').selectAll().where('id', '=', id).executeTakeFirst());
    return row === undefined ? null : this.#artefactOf(row);
  }

  async artefacts(): Promise<readonly Artefact[]> {
    const rows = await stored('read the artefacts', () => this.#db.selectFrom('template_artefacts').selectAll().execute());
    return rows.map((row) => this.#artefactOf(row));
  }

  async currentArtefacts(): Promise<ReadonlySet<ArtefactId>> {
    const rows = await stored('read the templates', () => this.#db.selectFrom('templates').select('artefact_id').where('artefact_id', 'is not', null).execute());
    return new Set(rows.map((row) => row.artefact_id as ArtefactId));
  }

  async removeArtefact(id: ArtefactId): Promise<void> {
    await stored('remove the artefact', () => this.#db.deleteFrom('template_artefacts').where('id', '=', id).execute());
  }

  async isNeeded(teamId: TeamId, publicId: string): Promise<boolean> {
    return stored('look for sandboxes of the template', async () => {
      const sandbox = await this.#sandboxesThatCount().select('id').where('team_id', '=', teamId).where('template_id', '=', publicId).limit(1).executeTakeFirst();
      if (sandbox !== undefined) return true;
      const snapshots = await this.#db.selectFrom('snapshots').select('captured').where('team_id', '=', teamId).where('captured', 'like', `%${publicId}%`).execute();
      // The text may be anywhere in it: what a user declared is there too.
      return snapshots.some(({ captured }) => templateIn(captured).id === publicId);
    });
  }

  async neededDigests(): Promise<ReadonlySet<string>> {
    return stored('look for digests in use', async () => {
      const sandboxes = await this.#sandboxesThatCount().select('template_digest').distinct().execute();
      const snapshots = await this.#db.selectFrom('snapshots').select('captured').execute();
      return new Set([...sandboxes.map((row) => row.template_digest), ...snapshots.map(({ captured }) => templateIn(captured).digest)]);
    });
  }

  /** Those that have not ended, and those whose owner may bring them back after a crash. */
  #sandboxesThatCount() {
    return this.#db.selectFrom('sandboxes').where((e) => e.or([e('state', '<>', 'killed'), e.and([e('state', '=', 'killed'), e('end_reason', 'in', crashes), e.exists(e.selectFrom('snapshots').select('snapshots.id').whereRef('snapshots.sandbox_id', '=', 'sandboxes.id'))])]));
  }

  #fromRow(row: TemplateRow): OwnTemplate {
    return Object.freeze({
      id: row.id as TemplateId,
      teamId: row.team_id as TeamId,
      name: row.name,
      status: row.status as TemplateStatus,
      spec: frozenJson<TemplateSpec>(this.#sealer.open(specOf(row.id), row.spec_sealed)),
      specHash: row.spec_hash,
      errorMessage: row.error_message,
      artefactId: row.artefact_id as ArtefactId | null,
      latestBuildId: row.latest_build_id as BuildId,
      createdAt: row.created_at,
      builtAt: row.built_at,
      sizeBytes: row.size_bytes,
    });
  }

  #artefactRow(artefact: Artefact): TemplateArtefactRow {
    const { env, user, sudo, workdir } = artefact;
    return {
      id: artefact.id,
      template_id: artefact.templateId,
      team_id: artefact.teamId,
      digest: artefact.digest,
      root: JSON.stringify(artefact.root),
      limits: JSON.stringify(artefact.limits),
      surroundings_sealed: this.#sealer.seal(surroundingsOf(artefact.id), JSON.stringify({ env, user, sudo, workdir })),
      size_bytes: artefact.sizeBytes,
      spec_hash: artefact.specHash,
      start: artefact.start === null ? null : JSON.stringify(artefact.start),
      created_at: artefact.createdAt,
    };
  }

  #artefactOf(row: TemplateArtefactRow): Artefact {
    return Object.freeze({
      ...frozenJson<Surroundings>(this.#sealer.open(surroundingsOf(row.id), row.surroundings_sealed)),
      id: row.id as ArtefactId,
      templateId: row.template_id as TemplateId,
      teamId: row.team_id as TeamId,
      digest: row.digest,
      root: frozenJson<Artefact['root']>(row.root),
      limits: frozenJson<Artefact['limits']>(row.limits),
      sizeBytes: row.size_bytes,
      specHash: row.spec_hash,
      start: row.start === null ? null : frozenJson<NonNullable<Artefact['start']>>(row.start),
      createdAt: row.created_at,
    });
  }
}

function buildRow(build: TemplateBuild): TemplateBuildRow {
  return {
    id: build.id,
    template_id: build.templateId,
    team_id: build.teamId,
    status: build.status,
    spec_hash: build.specHash,
    error_message: build.errorMessage,
    created_at: build.createdAt,
    started_at: build.startedAt,
    finalized_at: build.finalizedAt,
  };
}

function buildOf(row: TemplateBuildRow): TemplateBuild {
  return Object.freeze({
    id: row.id as BuildId,
    templateId: row.template_id as TemplateId,
    teamId: row.team_id as TeamId,
    status: row.status as BuildStatus,
    specHash: row.spec_hash,
    errorMessage: row.error_message,
    createdAt: row.created_at,
    startedAt: row.started_at,
    finalizedAt: row.finalized_at,
  });
}

function templateIn(captured: string): { readonly id: string; readonly digest: string } {
  return (JSON.parse(captured) as { template: { id: string; digest: string } }).template;
}

/** The place of a specification in its row. */
export function specOf(id: string): string {
  return `templates/${id}/spec`;
}

/** The place of what a template says of processes in its row. */
export function surroundingsOf(id: string): string {
  return `template_artefacts/${id}/surroundings`;
}
