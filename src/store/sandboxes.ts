import { setImmediate as othersFirst } from 'node:timers/promises';
import { sql, type Expression, type ExpressionBuilder, type Kysely, type RawBuilder, type SqlBool } from 'kysely';
import type { AuthorityId, SandboxId, SandboxRef, ShortId, SnapshotId, TeamId } from '../core/ids.ts';
import type { EndReason, PauseCause, Sandbox, SandboxState, WireName } from '../core/sandbox.ts';
import type { Authority, Binding } from '../core/secrets/secret.ts';
import type { Snapshot } from '../core/snapshot.ts';
import type { SandboxGuard, SandboxPage, SandboxPatch, SandboxQuery, SandboxStore } from '../core/store.ts';
import { authorityRow } from './authorities.ts';
import { frozenJson, stored } from './fault.ts';
import type { Policies } from './policies.ts';
import type { SandboxRow, Schema } from './schema.ts';
import { bindingRow } from './secret-bindings.ts';
import type { Sealer } from './sealer.ts';
import { snapshotRow } from './snapshots.ts';

const purgedAtOnce = 500;

/** As text of the statement: a partial index is used only where the statement itself says its condition. */
const killed = sql.lit('killed');

export class SqlSandboxes implements SandboxStore {
  readonly #db: Kysely<Schema>;
  readonly #sealer: Sealer;
  readonly #policies: Policies;

  constructor(db: Kysely<Schema>, sealer: Sealer, policies: Policies) {
    this.#db = db;
    this.#sealer = sealer;
    this.#policies = policies;
  }

  async insert(sandbox: Sandbox, { authority, bindings }: { readonly authority: Authority | null; readonly bindings: readonly Binding[] } = { authority: null, bindings: [] }): Promise<void> {
    const row = this.#toRow(sandbox);
    const metadata = Object.entries(sandbox.metadata).map(([key, value]) => ({ sandbox_id: row.id, team_id: row.team_id, key, value }));
    await stored('insert the sandbox', async () => {
      if (metadata.length === 0 && authority === null && bindings.length === 0) {
        await this.#db.insertInto('sandboxes').values(row).execute();
        return;
      }
      await this.#db.transaction().execute(async (work) => {
        await work.insertInto('sandboxes').values(row).execute();
        if (metadata.length > 0) await work.insertInto('sandbox_metadata').values(metadata).execute();
        if (authority !== null) await work.insertInto('authorities').values(authorityRow(authority, this.#sealer)).execute();
        if (bindings.length > 0) await work.insertInto('secret_bindings').values(bindings.map((each) => bindingRow(each, this.#sealer))).execute();
      });
    });
  }

  async find(teamId: TeamId | null, ref: SandboxRef): Promise<Sandbox | null> {
    const row = await stored('read the sandbox', () => {
      let query = this.#db.selectFrom('sandboxes').selectAll();
      query = 'id' in ref ? query.where('id', '=', ref.id) : query.where('short_id', '=', ref.shortId);
      if (teamId !== null) query = query.where('team_id', '=', teamId);
      return query.executeTakeFirst();
    });
    return row === undefined ? null : this.#fromRow(row);
  }

  async list(teamId: TeamId, query: SandboxQuery): Promise<SandboxPage> {
    if (query.states.length === 0) return { items: [], total: 0, more: false };
    const matching = (e: ExpressionBuilder<Schema, 'sandboxes'>): Expression<SqlBool> =>
      e.and([
        e('team_id', '=', teamId),
        e('state', 'in', query.states),
        ...(query.states.includes('killed') ? [] : [e('state', '<>', killed)]),
        ...(query.nameContains ? [e(sql`instr(lower(name), ${query.nameContains.toLowerCase()})`, '>', 0)] : []),
        ...(query.endReasons === undefined ? [] : [e.or([e('end_reason', 'is', null), e('end_reason', 'in', query.endReasons)])]),
        ...Object.entries(query.metadata).map(([key, value]) =>
          e.exists(
            e
              .selectFrom('sandbox_metadata')
              .select('sandbox_id')
              .whereRef('sandbox_metadata.sandbox_id', '=', 'sandboxes.id')
              .where('sandbox_metadata.key', '=', key)
              .where('sandbox_metadata.value', '=', value),
          ),
        ),
      ]);
    return stored('list the sandboxes', async () => {
      const counted = await this.#db
        .selectFrom('sandboxes')
        .where(matching)
        .select((e) => e.fn.countAll<number>().as('total'))
        .executeTakeFirstOrThrow();
      let page = this.#db.selectFrom('sandboxes').selectAll().where(matching);
      const after = query.after;
      if (after !== undefined) {
        page = page.where((e) =>
          e.or([e('created_at', '<', after.createdAt), e.and([e('created_at', '=', after.createdAt), e('id', '<', after.id)])]),
        );
      }
      const direction = query.order?.descending === false ? 'asc' : 'desc';
      const by = query.order?.by ?? 'createdAt';
      if (by === 'name') page = page.orderBy('name', direction);
      else if (by !== 'createdAt') page = page.orderBy(placeOf(by.states), direction);
      page = page.orderBy('created_at', direction).orderBy('id', direction).limit(query.limit + 1);
      if (query.offset !== undefined && query.offset > 0) page = page.offset(query.offset);
      const rows = await page.execute();
      return Object.freeze({
        items: Object.freeze(rows.slice(0, query.limit).map((row) => this.#fromRow(row))),
        total: Number(counted.total),
        more: rows.length > query.limit,
      });
    });
  }

  async inStates(states: readonly SandboxState[]): Promise<readonly Sandbox[]> {
    if (states.length === 0) return [];
    const rows = await stored('read the sandboxes', () => {
      let query = this.#db.selectFrom('sandboxes').selectAll().where('state', 'in', states);
      if (!states.includes('killed')) query = query.where('state', '<>', killed);
      return query.orderBy('created_at').orderBy('id').execute();
    });
    return rows.map((row) => this.#fromRow(row));
  }

  async countByState(): Promise<Readonly<Partial<Record<SandboxState, number>>>> {
    const rows = await stored('count the sandboxes', () =>
      this.#db.selectFrom('sandboxes').select((e) => ['state', e.fn.countAll<number>().as('count')]).where('state', '<>', killed).groupBy('state').execute(),
    );
    return Object.fromEntries(rows.map(({ state, count }) => [state, Number(count)]));
  }

  async transition(
    id: SandboxId,
    from: readonly SandboxState[],
    to: SandboxState,
    patch: SandboxPatch,
    guard: SandboxGuard = {},
  ): Promise<Sandbox | null> {
    if (from.length === 0) return null;
    const row = await stored(`move the sandbox to ${to}`, () =>
      patch.metadata === undefined ? this.#move(this.#db, id, from, to, patch, guard) : this.#db.transaction().execute((work) => this.#move(work, id, from, to, patch, guard)),
    );
    return row === undefined ? null : this.#fromRow(row);
  }

  async transitionWith(snapshot: Snapshot, from: readonly SandboxState[], to: SandboxState, patch: SandboxPatch, guard: SandboxGuard = {}): Promise<Sandbox | null> {
    const row = await stored(`move the sandbox to ${to}`, () =>
      this.#db.transaction().execute(async (work) => {
        const moved = await this.#move(work, snapshot.sandboxId, from, to, { ...patch, snapshotId: snapshot.id }, guard);
        if (moved === undefined) return undefined;
        const snapshotted = snapshotRow(snapshot, this.#sealer, this.#policies);
        const { checkpoint, checkpoint_id, bytes, ready_at } = snapshotted;
        await work.insertInto('snapshots').values(snapshotted).onConflict((c) => c.column('id').doUpdateSet({ checkpoint, checkpoint_id, bytes, ready_at })).execute();
        return moved;
      }),
    );
    return row === undefined ? null : this.#fromRow(row);
  }

  async #move(db: Kysely<Schema>, id: SandboxId, from: readonly SandboxState[], to: SandboxState, patch: SandboxPatch, guard: SandboxGuard): Promise<SandboxRow | undefined> {
    let update = db
      .updateTable('sandboxes')
      .set({ state: to, ...this.#patchColumns(id, patch) })
      .where('id', '=', id)
      .where('state', 'in', from);
    if (guard.endAt !== undefined) update = update.where('end_at', guard.endAt === null ? 'is' : '=', guard.endAt);
    if (guard.autoDeleteAt !== undefined) update = update.where('auto_delete_at', guard.autoDeleteAt === null ? 'is' : '=', guard.autoDeleteAt);
    if (guard.timeoutSeconds !== undefined) update = update.where('timeout_seconds', '=', guard.timeoutSeconds);
    if (guard.lifecycle !== undefined) update = update.where('lifecycle', '=', lifecycleText(guard.lifecycle));
    const row = await update.returningAll().executeTakeFirst();
    if (row !== undefined && patch.metadata !== undefined) {
      await db.deleteFrom('sandbox_metadata').where('sandbox_id', '=', id).execute();
      const entries = Object.entries(patch.metadata).map(([key, value]) => ({ sandbox_id: row.id, team_id: row.team_id, key, value }));
      if (entries.length > 0) await db.insertInto('sandbox_metadata').values(entries).execute();
    }
    return row;
  }

  async remove(id: SandboxId): Promise<boolean> {
    // Bindings and authorities that nobody names any more go with the next purge.
    const result = await stored('remove the sandbox', () =>
      this.#db.deleteFrom('sandboxes').where('id', '=', id).where('state', 'in', ['creating', 'running']).executeTakeFirst(),
    );
    return result.numDeletedRows > 0n;
  }

  async purge(endedBefore: number): Promise<number> {
    let purged = 0;
    for (;;) {
      const result = await stored('purge old sandboxes', () =>
        this.#db
          .deleteFrom('sandboxes')
          .where('id', 'in', (e) => e.selectFrom('sandboxes').select('id').where('state', '=', killed).where('ended_at', '<', endedBefore).limit(purgedAtOnce))
          .executeTakeFirst(),
      );
      const count = Number(result.numDeletedRows);
      purged += count;
      if (count < purgedAtOnce) return purged;
      // SQLite works in this thread: a week's tombstones at once would hold up every request.
      await othersFirst();
    }
  }

  #toRow(sandbox: Sandbox): SandboxRow {
    return {
      id: sandbox.id,
      short_id: sandbox.shortId,
      team_id: sandbox.teamId,
      wire: sandbox.wire,
      name: sandbox.name,
      state: sandbox.state,
      template_id: sandbox.template.id,
      template_name: sandbox.template.name,
      template_digest: sandbox.template.digest,
      template_runtime: runtimeText(sandbox.template),
      limits: JSON.stringify(sandbox.limits),
      default_user: sandbox.defaultUser,
      metadata: JSON.stringify(sandbox.metadata),
      envs_sealed: this.#sealer.seal(envsOf(sandbox.id), JSON.stringify(sandbox.envs)),
      lifecycle: lifecycleText(sandbox.lifecycle),
      declared: JSON.stringify(sandbox.declared),
      policy: this.#policies.write(sandbox.policy),
      timeout_seconds: sandbox.timeoutSeconds,
      created_at: sandbox.createdAt,
      started_at: sandbox.startedAt,
      end_at: sandbox.endAt,
      generation: sandbox.generation,
      guest: sandbox.guest === null ? null : JSON.stringify(sandbox.guest),
      ended_at: sandbox.end?.at ?? null,
      end_reason: sandbox.end?.reason ?? null,
      end_detail: sandbox.end?.detail ?? null,
      period_started_at: sandbox.periodStartedAt,
      paused_at: sandbox.pausedAt,
      pause_cause: sandbox.pauseCause,
      auto_delete_at: sandbox.autoDeleteAt,
      snapshot_id: sandbox.snapshotId,
      source_snapshot_id: sandbox.sourceSnapshotId,
      authority_id: sandbox.authorityId,
    };
  }

  #fromRow(row: SandboxRow): Sandbox {
    return Object.freeze({
      id: row.id as SandboxId,
      shortId: row.short_id as ShortId,
      teamId: row.team_id as TeamId,
      wire: row.wire as WireName,
      name: row.name,
      template: Object.freeze({ id: row.template_id, name: row.template_name, digest: row.template_digest, ...(row.template_runtime === null ? {} : { runtime: frozenJson<NonNullable<Sandbox['template']['runtime']>>(row.template_runtime) }) }),
      limits: frozenJson<Sandbox['limits']>(row.limits),
      state: row.state as SandboxState,
      defaultUser: row.default_user,
      metadata: frozenJson<Sandbox['metadata']>(row.metadata),
      envs: frozenJson<Sandbox['envs']>(this.#sealer.open(envsOf(row.id), row.envs_sealed)),
      lifecycle: frozenJson<Sandbox['lifecycle']>(row.lifecycle),
      declared: frozenJson<Sandbox['declared']>(row.declared),
      policy: this.#policies.read(row.policy),
      timeoutSeconds: row.timeout_seconds,
      createdAt: row.created_at,
      startedAt: row.started_at,
      endAt: row.end_at,
      generation: row.generation,
      guest: row.guest === null ? null : frozenJson<Sandbox['guest']>(row.guest),
      periodStartedAt: row.period_started_at,
      pausedAt: row.paused_at,
      pauseCause: row.pause_cause as PauseCause | null,
      autoDeleteAt: row.auto_delete_at,
      snapshotId: row.snapshot_id as SnapshotId | null,
      sourceSnapshotId: row.source_snapshot_id as SnapshotId | null,
      authorityId: row.authority_id as AuthorityId | null,
      end:
        row.ended_at === null || row.end_reason === null
          ? null
          : Object.freeze({ at: row.ended_at, reason: row.end_reason as EndReason, detail: row.end_detail ?? '' }),
    });
  }

  #patchColumns(id: SandboxId, patch: SandboxPatch): Partial<SandboxRow> {
    const columns: Partial<SandboxRow> = {};
    if (patch.startedAt !== undefined) columns.started_at = patch.startedAt;
    if (patch.endAt !== undefined) columns.end_at = patch.endAt;
    if (patch.timeoutSeconds !== undefined) columns.timeout_seconds = patch.timeoutSeconds;
    if (patch.generation !== undefined) columns.generation = patch.generation;
    if (patch.guest !== undefined) columns.guest = patch.guest === null ? null : JSON.stringify(patch.guest);
    if (patch.end !== undefined) {
      columns.ended_at = patch.end?.at ?? null;
      columns.end_reason = patch.end?.reason ?? null;
      columns.end_detail = patch.end?.detail ?? null;
    }
    if (patch.policy !== undefined) columns.policy = this.#policies.write(patch.policy);
    if (patch.declared !== undefined) columns.declared = JSON.stringify(patch.declared);
    if (patch.lifecycle !== undefined) columns.lifecycle = lifecycleText(patch.lifecycle);
    if (patch.metadata !== undefined) columns.metadata = JSON.stringify(patch.metadata);
    if (patch.limits !== undefined) columns.limits = JSON.stringify(patch.limits);
    if (patch.template !== undefined) {
      [columns.template_id, columns.template_name, columns.template_digest] = [patch.template.id, patch.template.name, patch.template.digest];
      columns.template_runtime = runtimeText(patch.template);
    }
    if (patch.envs !== undefined) columns.envs_sealed = this.#sealer.seal(envsOf(id), JSON.stringify(patch.envs));
    if (patch.defaultUser !== undefined) columns.default_user = patch.defaultUser;
    if (patch.periodStartedAt !== undefined) columns.period_started_at = patch.periodStartedAt;
    if (patch.pausedAt !== undefined) columns.paused_at = patch.pausedAt;
    if (patch.pauseCause !== undefined) columns.pause_cause = patch.pauseCause;
    if (patch.autoDeleteAt !== undefined) columns.auto_delete_at = patch.autoDeleteAt;
    if (patch.snapshotId !== undefined) columns.snapshot_id = patch.snapshotId;
    if (patch.authorityId !== undefined) columns.authority_id = patch.authorityId;
    return columns;
  }
}

/** The place of a row's state in the list. */
function placeOf(states: readonly SandboxState[]): RawBuilder<number> {
  return sql<number>`case state ${sql.join(states.map((state, i) => sql`when ${state} then ${sql.lit(i)}`), sql` `)} else ${sql.lit(states.length)} end`;
}

/** One text for one value, since guards compare it. */
function lifecycleText({ onTimeout, autoResume, maxLifetimeSeconds, autoDeleteSeconds }: Sandbox['lifecycle']): string {
  return JSON.stringify({ onTimeout, autoResume, maxLifetimeSeconds, autoDeleteSeconds });
}

function runtimeText({ runtime }: Sandbox['template']): string | null {
  return runtime === undefined ? null : JSON.stringify(runtime);
}

/** The place of the environment in a row. */
export function envsOf(id: string): string {
  return `sandboxes/${id}/envs`;
}
