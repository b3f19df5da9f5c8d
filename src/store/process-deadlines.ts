import type { Kysely } from 'kysely';
import type { SandboxId, TeamId } from '../core/ids.ts';
import type { ProcessDeadline, ProcessDeadlineStore } from '../core/store.ts';
import { stored } from './fault.ts';
import type { Schema } from './schema.ts';

export class SqlProcessDeadlines implements ProcessDeadlineStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async put(deadline: ProcessDeadline): Promise<void> {
    await stored('store the deadline of a process', () =>
      this.#db
        .insertInto('process_deadlines')
        .values({ sandbox_id: deadline.sandboxId, process_id: deadline.processId, team_id: deadline.teamId, at: deadline.at })
        .onConflict((conflict) => conflict.columns(['sandbox_id', 'process_id']).doUpdateSet({ at: deadline.at }))
        .execute(),
    );
  }

  async remove(sandboxId: SandboxId, processId: string): Promise<void> {
    await stored('remove the deadline of a process', () =>
      this.#db.deleteFrom('process_deadlines').where('sandbox_id', '=', sandboxId).where('process_id', '=', processId).execute(),
    );
  }

  async removeAll(sandboxId: SandboxId): Promise<void> {
    await stored('remove the deadlines of a sandbox', () => this.#db.deleteFrom('process_deadlines').where('sandbox_id', '=', sandboxId).execute());
  }

  async replaceAll(sandboxId: SandboxId, deadlines: readonly ProcessDeadline[]): Promise<void> {
    await stored('store the deadlines of processes', () =>
      this.#db.transaction().execute(async (work) => {
        await work.deleteFrom('process_deadlines').where('sandbox_id', '=', sandboxId).execute();
        const rows = deadlines.map((each) => ({ sandbox_id: sandboxId, process_id: each.processId, team_id: each.teamId, at: each.at }));
        if (rows.length > 0) await work.insertInto('process_deadlines').values(rows).execute();
      }),
    );
  }

  async all(): Promise<readonly ProcessDeadline[]> {
    const rows = await stored('read the deadlines of processes', () => this.#db.selectFrom('process_deadlines').selectAll().orderBy('at').execute());
    return rows.map((row) =>
      Object.freeze({ sandboxId: row.sandbox_id as SandboxId, processId: row.process_id, teamId: row.team_id as TeamId, at: row.at }),
    );
  }
}
