import { createHash } from 'node:crypto';
import type { Kysely } from 'kysely';
import { PaddockError } from '../core/errors.ts';
import type { SecretId, TeamId } from '../core/ids.ts';
import type { SecretRule } from '../core/network/inspection.ts';
import type { OpenedSecret, Secret } from '../core/secrets/secret.ts';
import type { SecretPage, SecretQuery, SecretStore } from '../core/secrets/store.ts';
import { frozenJson, stored } from './fault.ts';
import type { Schema, SecretRow } from './schema.ts';
import type { Sealer } from './sealer.ts';

/** Rows of one statement, far below every database's limit of parameters. */
const idsAtOnce = 200;

export class SqlSecrets implements SecretStore {
  readonly #db: Kysely<Schema>;
  readonly #sealer: Sealer;

  constructor(db: Kysely<Schema>, sealer: Sealer) {
    this.#db = db;
    this.#sealer = sealer;
  }

  async insert(secret: Secret, value: string): Promise<void> {
    const row: SecretRow = {
      id: secret.id,
      team_id: secret.teamId,
      environment: secret.environment,
      name: secret.name,
      provider: secret.provider,
      rules: JSON.stringify(secret.rules),
      value_sealed: null,
      created_at: secret.createdAt,
      updated_at: secret.updatedAt,
      rotated_at: secret.rotatedAt,
      rotation_interval_days: secret.rotationIntervalDays,
      last_used_at: secret.lastUsedAt,
      deleted_at: secret.deletedAt,
    };
    await stored('store the secret', () => this.#db.insertInto('secrets').values({ ...row, value_sealed: this.#sealer.seal(valueOf(row), value) }).execute());
  }

  async find(teamId: TeamId, id: SecretId): Promise<Secret | null> {
    const row = await stored('read the secret', () => this.#live(teamId).where('id', '=', id).executeTakeFirst());
    return row === undefined ? null : fromRow(row);
  }

  async findByName(teamId: TeamId, environment: string, name: string): Promise<Secret | null> {
    const row = await stored('read the secret', () => this.#live(teamId).where('environment', '=', environment).where('name', '=', name).executeTakeFirst());
    return row === undefined ? null : fromRow(row);
  }

  async list(teamId: TeamId, { environment, limit, offset }: SecretQuery): Promise<SecretPage> {
    return stored('list the secrets', async () => {
      let counted = this.#db.selectFrom('secrets').where('team_id', '=', teamId).where('deleted_at', 'is', null);
      let page = this.#live(teamId);
      if (environment !== undefined) [counted, page] = [counted.where('environment', '=', environment), page.where('environment', '=', environment)];
      const { total } = await counted.select((e) => e.fn.countAll<number>().as('total')).executeTakeFirstOrThrow();
      const rows = await page.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).offset(offset).execute();
      return Object.freeze({ items: Object.freeze(rows.map(fromRow)), total: Number(total) });
    });
  }

  async rotate(teamId: TeamId, id: SecretId, value: string, at: number): Promise<Secret | null> {
    return this.#change(teamId, id, (row) => ({ value_sealed: this.#sealer.seal(valueOf(row), value), rotated_at: at, updated_at: at }));
  }

  /** What the value is sealed for names the rules, so that nobody widens them in the row. */
  async replaceRules(teamId: TeamId, id: SecretId, rules: readonly SecretRule[], at: number): Promise<Secret | null> {
    return this.#change(teamId, id, (row, value) => {
      const text = JSON.stringify(rules);
      return { rules: text, value_sealed: this.#sealer.seal(valueOf({ ...row, rules: text }), value), updated_at: at };
    });
  }

  /** What is sealed must open first: a row whose hosts were altered would get their owner's new value otherwise. */
  async #change(teamId: TeamId, id: SecretId, changes: (row: SecretRow, value: string) => Partial<SecretRow>): Promise<Secret | null> {
    return stored('change the secret', () =>
      this.#db.transaction().execute(async (work) => {
        const row = await work.selectFrom('secrets').selectAll().where('team_id', '=', teamId).where('deleted_at', 'is', null).where('id', '=', id).executeTakeFirst();
        if (row === undefined) return null;
        const { value, fault } = this.#open(row);
        if (value === null) throw new PaddockError('unprocessable', `the secret cannot be changed: ${fault ?? 'it has no value'}. Delete it and store it again`);
        return fromRow(await work.updateTable('secrets').set(changes(row, value)).where('id', '=', id).returningAll().executeTakeFirstOrThrow());
      }),
    );
  }

  async delete(teamId: TeamId, id: SecretId, at: number): Promise<boolean> {
    const result = await stored('delete the secret', () =>
      this.#db.updateTable('secrets').set({ value_sealed: null, deleted_at: at, updated_at: at }).where('id', '=', id).where('team_id', '=', teamId).where('deleted_at', 'is', null).executeTakeFirst(),
    );
    return result.numUpdatedRows > 0n;
  }

  async open(teamId: TeamId, ids: readonly SecretId[]): Promise<ReadonlyMap<SecretId, OpenedSecret>> {
    const wanted = [...new Set(ids)];
    const opened = new Map<SecretId, OpenedSecret>();
    for (let i = 0; i < wanted.length; i += idsAtOnce) {
      const part = wanted.slice(i, i + idsAtOnce);
      const rows = await stored('open secrets', () => this.#db.selectFrom('secrets').selectAll().where('team_id', '=', teamId).where('id', 'in', part).execute());
      for (const row of rows) opened.set(row.id as SecretId, this.#open(row));
    }
    return opened;
  }

  #open(row: SecretRow): OpenedSecret {
    try {
      return Object.freeze({ secret: fromRow(row), value: row.value_sealed === null || row.deleted_at !== null ? null : this.#sealer.open(valueOf(row), row.value_sealed), fault: null });
    } catch (error) {
      const secret = fromRow({ ...row, rules: '[]' });
      return Object.freeze({ secret, value: null, fault: PaddockError.from(error).message });
    }
  }

  async used(ids: readonly SecretId[], at: number): Promise<void> {
    if (ids.length === 0) return;
    await stored('note the use of secrets', () =>
      this.#db.updateTable('secrets').set({ last_used_at: at }).where('id', 'in', [...ids]).where((e) => e.or([e('last_used_at', 'is', null), e('last_used_at', '<', at)])).execute(),
    );
  }

  async environments(teamId: TeamId): Promise<readonly string[]> {
    const rows = await stored('list the environments', () => this.#db.selectFrom('secret_environments').select('name').where('team_id', '=', teamId).orderBy('created_at').orderBy('name').execute());
    return rows.map(({ name }) => name);
  }

  async addEnvironment(teamId: TeamId, name: string, at: number): Promise<boolean> {
    const result = await stored('add the environment', () =>
      this.#db.insertInto('secret_environments').values({ team_id: teamId, name, created_at: at }).onConflict((conflict) => conflict.doNothing()).executeTakeFirst(),
    );
    return (result.numInsertedOrUpdatedRows ?? 0n) > 0n;
  }

  async purge(deletedBefore: number): Promise<number> {
    const result = await stored('forget deleted secrets', () =>
      this.#db
        .deleteFrom('secrets')
        .where('deleted_at', '<', deletedBefore)
        .where((e) => e.not(e.exists(e.selectFrom('secret_bindings').select('id').whereRef('secret_bindings.secret_id', '=', 'secrets.id'))))
        .executeTakeFirst(),
    );
    return Number(result.numDeletedRows);
  }

  #live(teamId: TeamId) {
    return this.#db.selectFrom('secrets').selectAll().where('team_id', '=', teamId).where('deleted_at', 'is', null);
  }
}

/** The place of a value: whose it is, what it is called and where it may go are part of it. */
export function valueOf(row: Pick<SecretRow, 'id' | 'team_id' | 'environment' | 'name' | 'rules'>): string {
  const { id, team_id, environment, name, rules } = row;
  return `secrets/${id}/value/${createHash('sha256').update(JSON.stringify([team_id, environment, name, rules])).digest('hex')}`;
}

function fromRow(row: SecretRow): Secret {
  return Object.freeze({
    id: row.id as SecretId,
    teamId: row.team_id as TeamId,
    environment: row.environment,
    name: row.name,
    provider: row.provider,
    rules: rulesOf(row.rules),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    rotatedAt: row.rotated_at,
    rotationIntervalDays: row.rotation_interval_days,
    lastUsedAt: row.last_used_at,
    deletedAt: row.deleted_at,
  });
}

/** None where the text was damaged: its value does not open either, and the others can be listed. */
function rulesOf(text: string): Secret['rules'] {
  try {
    const rules = frozenJson<unknown>(text);
    return Array.isArray(rules) ? (rules as SecretRule[]) : [];
  } catch {
    return [];
  }
}
