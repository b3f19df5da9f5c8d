import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { PaddockError } from './errors.ts';
import type { SandboxId } from './ids.ts';
import type { SandboxState } from './sandbox.ts';
import { statesBefore, transitions } from './state.ts';
import { never, Server, until } from './testing/server.ts';

type Action =
  | {
      readonly type: 'create';
      readonly timeout: number;
      readonly onTimeout: 'kill' | 'pause';
      readonly autoResume: boolean;
      readonly autoDelete: number | null;
      readonly provisionMs: number;
      readonly fails: boolean;
      readonly leavesAfterMs: number | null;
    }
  | { readonly type: Touch; readonly which: number }
  | { readonly type: 'jump' | 'restart' }
  | { readonly type: 'destroyFails' | 'checkpointFails' | 'restoreFails'; readonly times: number };

const touches = ['kill', 'killLater', 'death', 'setTimeout', 'use', 'pause', 'pause', 'resume', 'activate', 'snapshot', 'restore', 'fork', 'write', 'write'] as const;
type Touch = (typeof touches)[number];

const which = fc.nat({ max: 5 });
const action: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('create' as const),
      timeout: fc.constantFrom(0, 5, 60),
      onTimeout: fc.constantFrom('kill' as const, 'pause' as const),
      autoResume: fc.boolean(),
      autoDelete: fc.constantFrom(null, null, 0, 4),
      provisionMs: fc.nat({ max: 6 }),
      fails: fc.constantFrom(false, false, false, true),
      leavesAfterMs: fc.constantFrom(null, null, null, 0, 1, 3),
    }),
  },
  { weight: 14, arbitrary: fc.record({ type: fc.constantFrom(...touches), which }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constantFrom('jump' as const, 'restart' as const) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constantFrom('destroyFails' as const, 'checkpointFails' as const, 'restoreFails' as const), times: fc.integer({ min: 1, max: 2 }) }) },
);

/** Every code that a caller may see when others do what they like with the same sandboxes. */
const expectedCodes = new Set(['conflict', 'gone', 'not_found', 'internal', 'no_capacity', 'no_space', 'unprocessable', 'concurrency_limit']);

/** What the outside was told; whatever happens later must agree with it. */
interface Told {
  readonly created: Set<SandboxId>;
  readonly ended: Set<SandboxId>;
  readonly kills: Map<SandboxId, number>;
  /** Somebody asked for their end, with or without success. */
  readonly asked: Set<SandboxId>;
  /** Creates that failed, by number. */
  readonly failed: Set<string>;
  /** The numbers written into a sandbox's file: what it holds is none older than the last that was acknowledged. */
  readonly written: Map<SandboxId, { tried: number; acknowledged: number }>;
  /** Put back to an earlier state, so that an older number may be there. */
  readonly putBack: Set<SandboxId>;
}

class Story {
  readonly server: Server;
  readonly told: Told = { created: new Set(), ended: new Set(), kills: new Map(), asked: new Set(), failed: new Set(), written: new Map(), putBack: new Set() };
  #creates = 0;
  #lives = 0;
  readonly #running: Promise<unknown>[] = [];
  readonly #writes = new Map<SandboxId, Promise<unknown>>();
  readonly #failures = { destroyFails: 0, checkpointFails: 0, restoreFails: 0 };
  #failed = false;

  constructor(server: Server) {
    this.server = server;
    server.host.onProvision = async ({ identity }) => {
      await sleep(Number(identity.env['PROVISION_MS']));
      if (identity.env['FAILS'] === 'true') throw new PaddockError('no_capacity', 'no memory');
    };
    server.host.onDestroy = () => this.#meet('destroyFails', new Error('device busy'));
    server.host.onCheckpoint = () => this.#meet('checkpointFails', new PaddockError('no_space', 'no space left'));
    server.host.onSaved = async () => void (await sleep(1));
    server.host.onRestore = () => this.#meet('restoreFails', new Error('runsc ended'));
  }

  async #meet(what: 'destroyFails' | 'checkpointFails' | 'restoreFails', error: Error): Promise<void> {
    await sleep(1);
    if (this.#failures[what] === 0) return;
    this.#failures[what] -= 1;
    throw error;
  }

  async act(action: Action): Promise<void> {
    const { server, told } = this;
    switch (action.type) {
      case 'create':
        return this.#background(async () => {
          const signal = action.leavesAfterMs === null ? new AbortController().signal : AbortSignal.timeout(action.leavesAfterMs);
          const envs = { PROVISION_MS: String(action.provisionMs), FAILS: String(action.fails) };
          const lifecycle = { onTimeout: action.onTimeout, autoResume: action.autoResume, maxLifetimeSeconds: null, autoDeleteSeconds: action.autoDelete };
          const [n, life] = [String(this.#creates++), this.#lives];
          try {
            told.created.add((await server.create({ envs, timeoutSeconds: action.timeout, metadata: { n }, lifecycle }, signal)).id);
          } catch (error) {
            // When the server ends, nobody knows; otherwise a failure means that nothing was made.
            if (life === this.#lives) told.failed.add(n);
            throw error;
          }
        });
      case 'jump':
        server.clock.offset += 6000;
        return undefined;
      case 'restart':
        this.#lives += 1;
        return server.restart();
      case 'destroyFails':
      case 'checkpointFails':
      case 'restoreFails':
        this.#failures[action.type] = action.times;
        this.#failed = true;
        return undefined;
      default: {
        const id = server.host.specs[action.which]?.identity.sandboxId;
        if (id !== undefined) this.#background(() => this.#touch(action.type, id));
        return undefined;
      }
    }
  }

  /** Nothing is under way any more, and what is due has been done. */
  async settle(): Promise<void> {
    this.server.storeDelay = async () => undefined;
    Object.assign(this.#failures, { destroyFails: 0, checkpointFails: 0, restoreFails: 0 });
    await Promise.all(this.#running);
    // Before a restart, which would sweep away what was forgotten. What had failed is tried again after a while.
    if (this.#failed) this.server.clock.offset += 6000;
    await until('every guest has its row', () => this.#agree());
    await this.server.restart();
    await until('everything is settled', () => this.#agree());
  }

  async #agree(): Promise<boolean> {
    const { server } = this;
    const rows = await server.store.sandboxes.inStates(['creating', 'running', 'pausing', 'paused', 'resuming', 'killing']);
    const now = server.clock.now();
    const rest = rows.every((row) =>
      row.state === 'running'
        ? server.host.guests.has(row.id) && (row.endAt === null || row.endAt > now)
        : row.state === 'paused' && !server.host.guests.has(row.id) && (row.autoDeleteAt === null || row.autoDeleteAt > now),
    );
    return rest && server.host.guests.size === rows.filter((row) => row.state === 'running').length && server.host.held.size === 0;
  }

  async check(): Promise<void> {
    const { server, told } = this;
    const page = await server.sandboxes.list(server.principal, { states: Object.keys(transitions) as SandboxState[], metadata: {}, limit: 1000 });
    const rows = new Map(page.items.map((row) => [row.id, row] as const));
    const running = page.items.filter((row) => row.state === 'running').map((row) => row.id);
    assert.deepEqual([...server.host.guests.keys()].sort(), running.sort(), 'rows and guests agree');
    for (const id of told.created) assert.ok(rows.has(id), 'what was answered is not lost');
    for (const id of told.ended) assert.ok(told.putBack.has(id) || (rows.get(id)?.state ?? 'killed') === 'killed', 'what was said to have ended has ended');
    for (const [id, kills] of told.kills) assert.ok(kills <= 1 || told.putBack.has(id), `${id} was killed ${kills} times`);
    for (const row of rows.values()) {
      // A kill that came while it was created leaves its tombstone.
      assert.ok(told.asked.has(row.id) || !told.failed.has(row.metadata['n'] ?? ''), 'what failed has left nothing');
      if (row.state === 'running' || row.state === 'paused') {
        assert.equal(row.end, null);
        assert.equal(row.snapshotId !== null, row.state === 'paused', 'what is paused knows where it goes on');
        if (row.state === 'paused') await server.sandboxes.resume(server.principal, { id: row.id });
        await this.#checkFile(row.id);
      } else {
        assert.equal(row.state, 'killed');
        assert.ok(row.end !== null && row.guest === null);
      }
    }
    const snapshots = await server.store.snapshots.all();
    const named = new Set(snapshots.map((snapshot) => snapshot.checkpoint?.id));
    assert.deepEqual(new Set(server.host.saved.keys()), named, 'every checkpoint has its snapshot, and the other way round');
    assert.ok(snapshots.every((snapshot) => snapshot.source !== 'fork'), 'no snapshot of a fork is left');
    await server.events.flush();
    for (const row of rows.values()) {
      const names = (await server.store.events.list(row.teamId, row.id, 100)).map((event) => event.name);
      const restored = names.filter((name) => name === 'restored').length;
      assert.ok(names.filter((name) => name === 'ended').length <= 1 + restored, 'an end is told once');
    }
  }

  /** What was acknowledged is there, whatever happened since. */
  async #checkFile(id: SandboxId): Promise<void> {
    const written = this.told.written.get(id);
    if (written === undefined || written.acknowledged === 0 || this.told.putBack.has(id)) return;
    const { guest } = await this.server.sandboxes.use(this.server.principal, { id });
    const { body } = await guest.files.read('/n', undefined, never);
    const found = Number(Buffer.concat(await body.toArray()).toString());
    assert.ok(found >= written.acknowledged && found <= written.tried, `${found} is in the file, ${written.acknowledged} was acknowledged last, ${written.tried} tried`);
  }

  /** One at a time for each sandbox. */
  async #write(id: SandboxId): Promise<void> {
    const { server, told } = this;
    const written = told.written.get(id) ?? { tried: 0, acknowledged: 0 };
    told.written.set(id, written);
    const before = this.#writes.get(id) ?? Promise.resolve();
    const writing = (async () => {
      await before;
      const n = ++written.tried;
      await server.files.write(server.principal, { id }, '/n', undefined, Buffer.from(String(n)), never);
      written.acknowledged = n;
    })();
    this.#writes.set(id, writing.catch(() => undefined));
    await writing;
  }

  async #touch(type: Touch, id: SandboxId): Promise<void> {
    const { server, told } = this;
    if (type === 'kill' || type === 'killLater') told.asked.add(id);
    switch (type) {
      case 'kill': {
        const { killed } = await server.sandboxes.kill(server.principal, { id });
        told.ended.add(id);
        if (killed) told.kills.set(id, (told.kills.get(id) ?? 0) + 1);
        return;
      }
      case 'killLater':
        await server.sandboxes.killLater(server.principal, { id });
        told.ended.add(id);
        return;
      case 'death':
        server.host.kill(id, { reason: 'runtime_crashed', detail: 'boom' });
        return;
      case 'setTimeout':
        await server.sandboxes.setTimeout(server.principal, { id }, 60);
        return;
      case 'use':
        await server.sandboxes.use(server.principal, { id });
        return;
      case 'pause':
        await server.sandboxes.pause(server.principal, { id });
        return;
      case 'resume':
        await server.sandboxes.resume(server.principal, { id });
        return;
      case 'activate':
        await server.sandboxes.activate(server.principal, { id });
        return;
      case 'snapshot':
        await server.sandboxes.snapshots.create(server.principal, { id });
        return;
      case 'restore':
        told.putBack.add(id);
        await server.sandboxes.snapshots.restoreInPlace(server.principal, { id }, null);
        return;
      case 'fork':
        for (const fork of await server.sandboxes.forks.fork(server.principal, { id }, 2, {}, never)) told.created.add(fork.id);
        return;
      case 'write':
        await this.#write(id);
    }
  }

  #background(work: () => Promise<void>): void {
    this.#running.push(
      work().catch((error: unknown) => {
        assert.ok(error instanceof PaddockError, String(error));
        assert.ok(expectedCodes.has(error.code), `${error.code}: ${error.message}`);
      }),
    );
  }
}

describe('the life of sandboxes', () => {
  it('stays consistent whatever is done to them at once, over deaths, failures and restarts', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(action, fc.nat({ max: 3 })), { minLength: 1, maxLength: 20 }), fc.boolean(), async (actions, slow) => {
        await using server = await Server.start();
        const story = new Story(server);
        if (slow) server.storeDelay = async () => void (await sleep(Math.random() * 2));
        for (const [each, pauseMs] of actions) {
          await story.act(each);
          if (pauseMs > 0) await sleep(pauseMs);
        }
        await story.settle();
        await story.check();
      }),
      { numRuns: Number(process.env['PADDOCK_TEST_RUNS'] ?? 25), endOnFailure: true },
    );
  });

  it('moves only along the transitions there are', async () => {
    assert.deepEqual(statesBefore('killing'), ['creating', 'running', 'pausing', 'paused', 'resuming']);
    assert.deepEqual(statesBefore('running'), ['creating', 'pausing', 'resuming']);
    assert.deepEqual(statesBefore('creating'), []);
    assert.deepEqual(statesBefore('resuming'), ['running', 'paused', 'killed']);
    assert.deepEqual(transitions.killed, ['resuming']);
  });
});
