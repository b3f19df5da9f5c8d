import type { Kysely } from 'kysely';
import type { BuildId, BuildLogStore, LogLine, LogStream } from '../core/templates/template.ts';
import { stored } from './fault.ts';
import type { Schema } from './schema.ts';

const rowsAtOnce = 100;

export class SqlBuildLogs implements BuildLogStore {
  readonly #db: Kysely<Schema>;

  constructor(db: Kysely<Schema>) {
    this.#db = db;
  }

  async append(buildId: BuildId, lines: readonly LogLine[], keep: number): Promise<void> {
    const last = lines.at(-1);
    if (last === undefined) return;
    await stored('write the log of a build', () =>
      this.#db.transaction().execute(async (work) => {
        // A build that is deleted meanwhile takes its log along.
        if ((await work.selectFrom('template_builds').select('id').where('id', '=', buildId).executeTakeFirst()) === undefined) return;
        for (let from = 0; from < lines.length; from += rowsAtOnce) {
          const rows = lines.slice(from, from + rowsAtOnce).map(({ seq, at, stream, text }) => ({ build_id: buildId, seq, at, stream, text }));
          await work.insertInto('build_logs').values(rows).execute();
        }
        await work.deleteFrom('build_logs').where('build_id', '=', buildId).where('seq', '<=', last.seq - keep).execute();
      }),
    );
  }

  async read(buildId: BuildId, after: number, limit: number): Promise<readonly LogLine[]> {
    const rows = await stored('read the log of a build', () =>
      this.#db.selectFrom('build_logs').selectAll().where('build_id', '=', buildId).where('seq', '>', after).orderBy('seq').limit(limit).execute(),
    );
    return rows.map(({ seq, at, stream, text }) => ({ seq, at, stream: stream as LogStream, text }));
  }
}
