import { setImmediate as othersFirst } from 'node:timers/promises';
import type { Kysely } from 'kysely';
import type { SandboxId, TeamId } from '../core/ids.ts';
import type { EventCategory, EventStore, PaddockEvent } from '../core/store.ts';
import { frozenJson, stored } from './fault.ts';
import type { EventRow, Schema } from './schema.ts';

/** Rows of one statement: seven values each stays far below every database's limit of parameters. */
const rowsPerInsert = 500;
const purgedAtOnce = 1000;

export class SqlEvents implements EventStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async append(events: readonly PaddockEvent[]): Promise<void> {
    if (events.length === 0) return;
    const rows = events.map((event) => ({
      at: event.at,
      team_id: event.teamId,
      sandbox_id: event.sandboxId,
      category: event.category,
      name: event.name,
      detail: JSON.stringify(event.detail),
    }));
    await stored('record events', () =>
      this.#db.transaction().execute(async (work) => {
        for (let i = 0; i < rows.length; i += rowsPerInsert) {
          await work.insertInto('events').values(rows.slice(i, i + rowsPerInsert)).execute();
        }
      }),
    );
  }

  async list(teamId: TeamId, sandboxId: SandboxId, limit: number): Promise<readonly PaddockEvent[]> {
    const rows = await stored('read events', () =>
      this.#db.selectFrom('events').selectAll().where('team_id', '=', teamId).where('sandbox_id', '=', sandboxId).orderBy('seq', 'desc').limit(limit).execute(),
    );
    return rows.reverse().map(fromRow);
  }

  async purge(before: number, keepNewest: number): Promise<number> {
    // Numbers grow without large holes, so the distance from the newest stands for the count, and nothing is counted.
    const newest = await stored('read events', () => this.#db.selectFrom('events').select((e) => e.fn.max('seq').as('seq')).executeTakeFirst());
    const edge = (newest?.seq ?? 0) - keepNewest;
    let purged = 0;
    for (;;) {
      const result = await stored('purge old events', () =>
        this.#db
          .deleteFrom('events')
          .where('seq', 'in', (e) =>
            e
              .selectFrom('events')
              .select('seq')
              .where((old) => old.or([old('at', '<', before), old('seq', '<=', edge)]))
              .limit(purgedAtOnce),
          )
          .executeTakeFirst(),
      );
      const count = Number(result.numDeletedRows);
      purged += count;
      if (count < purgedAtOnce) return purged;
      // SQLite works in this thread: others shall have their turn.
      await othersFirst();
    }
  }
}

function fromRow(row: Omit<EventRow, 'seq'>): PaddockEvent {
  return Object.freeze({
    at: row.at,
    teamId: row.team_id as TeamId,
    sandboxId: row.sandbox_id as SandboxId | null,
    category: row.category as EventCategory,
    name: row.name,
    detail: frozenJson<PaddockEvent['detail']>(row.detail),
  });
}
