import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from './errors.ts';
import type { Sandbox } from './sandbox.ts';
import { never, Server, until } from './testing/server.ts';

const ref = ({ id }: Sandbox): { id: Sandbox['id'] } => ({ id });
const lifecycle = { onTimeout: 'kill', autoResume: false, maxLifetimeSeconds: null, autoDeleteSeconds: null } as const;

async function state(server: Server, sandbox: Sandbox): Promise<string> {
  return (await server.sandboxes.get(server.principal, ref(sandbox))).state;
}

async function nothingSaved(server: Server): Promise<void> {
  await until('nothing is left of the checkpoint', async () => server.host.saved.size === 0 && (await server.store.snapshots.all()).length === 0);
}

describe('a pause that fails', () => {
  it('at the checkpoint leaves the sandbox running, and says why', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.onCheckpoint = async () => {
      throw new PaddockError('no_space', 'the disk is full');
    };
    await assert.rejects(server.sandboxes.pause(server.principal, ref(sandbox)), { code: 'no_space' });
    assert.equal(await state(server, sandbox), 'running');
    await server.sandboxes.use(server.principal, ref(sandbox));
    await nothingSaved(server);
    server.host.onCheckpoint = async () => undefined;
    await server.sandboxes.pause(server.principal, ref(sandbox));
  });

  it('at the row lets the guest go on, and keeps nothing', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.onSaved = async () => {
      let steps = 0;
      // The step that would finish it, and no later one.
      server.storeDelay = async () => {
        if (steps++ === 0) throw new PaddockError('no_capacity', 'the disk of the server is full');
      };
    };
    await assert.rejects(server.sandboxes.pause(server.principal, ref(sandbox)), { code: 'no_capacity' });
    assert.equal(server.host.held.size, 0, 'it stands still');
    assert.equal(await state(server, sandbox), 'running');
    await nothingSaved(server);
  });

  it('because the guest dies of it says how the sandbox ended', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.onCheckpoint = async (id) => {
      server.host.kill(id, { reason: 'runtime_crashed', detail: 'boom' });
      await sleep(20);
    };
    await assert.rejects(server.sandboxes.pause(server.principal, ref(sandbox)), { code: 'gone', message: /boom/ });
    assert.equal(await state(server, sandbox), 'killed');
    await nothingSaved(server);
  });

  it('at its deadline is tried again, and never turns into a kill', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 5, lifecycle: { ...lifecycle, onTimeout: 'pause' } });
    let tries = 0;
    server.host.onCheckpoint = async () => {
      if (++tries < 3) throw new PaddockError('no_space', 'the disk is full');
    };
    server.clock.offset += 6000;
    await until('the first try', () => tries === 1);
    assert.equal(await state(server, sandbox), 'running');
    for (const wanted of [2, 3]) {
      server.clock.offset += 31_000;
      await until(`try ${wanted}`, () => tries === wanted);
    }
    await until('it is paused', async () => (await state(server, sandbox)) === 'paused');
  });
});

describe('a guest that dies', () => {
  it('when its state is safe loses nothing', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.files.write(server.principal, ref(sandbox), '/kept', undefined, Buffer.from('kept'), never);
    server.storeDelay = async () => void (await sleep(5));
    server.host.onSaved = async (id) => server.host.kill(id, { reason: 'runtime_crashed', detail: 'boom' });
    // The host cannot retire what is dead; the pause stands all the same.
    await server.sandboxes.pause(server.principal, ref(sandbox));
    server.storeDelay = async () => undefined;
    assert.equal(await state(server, sandbox), 'paused');
    await server.sandboxes.resume(server.principal, ref(sandbox));
    const { body } = await server.files.read(server.principal, ref(sandbox), '/kept', undefined, never);
    assert.equal(Buffer.concat(await body.toArray()).toString(), 'kept');
  });

  it('while it is brought back leaves the sandbox paused', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.sandboxes.pause(server.principal, ref(sandbox));
    server.host.onRestore = async () => {
      throw new PaddockError('unprocessable', 'the checkpoint is damaged');
    };
    await assert.rejects(server.sandboxes.resume(server.principal, ref(sandbox)), { code: 'unprocessable' });
    assert.equal(await state(server, sandbox), 'paused');
    server.host.onRestore = async () => undefined;
    await server.sandboxes.resume(server.principal, ref(sandbox));
  });

  it('after a pause of before leaves a state to be restored', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.sandboxes.pause(server.principal, ref(sandbox));
    await server.sandboxes.resume(server.principal, ref(sandbox));
    server.host.kill(sandbox.id, { reason: 'out_of_memory', detail: '' });
    await until('it has ended', async () => (await state(server, sandbox)) === 'killed');
    const { sandbox: back } = await server.sandboxes.snapshots.restoreInPlace(server.principal, ref(sandbox), null);
    assert.deepEqual([back.state, back.end], ['running', null]);
    await server.sandboxes.kill(server.principal, ref(sandbox));
    await nothingSaved(server);
  });
});

describe('a server that ends in the middle', () => {
  it('of a pause finds the guest running on', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.onSaved = () => new Promise(() => {});
    server.sandboxes.pause(server.principal, ref(sandbox)).catch(() => undefined);
    await until('it is saved', () => server.host.held.has(sandbox.id));
    await server.restart();
    assert.equal(await state(server, sandbox), 'running');
    assert.equal(server.host.held.size, 0);
    await nothingSaved(server);
  });

  it('of a pause, and the machine with it, finds the sandbox paused if its state is complete', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ lifecycle: { ...lifecycle, autoDeleteSeconds: 500 } });
    server.host.onSaved = () => new Promise(() => {});
    server.sandboxes.pause(server.principal, ref(sandbox)).catch(() => undefined);
    await until('it is saved', () => server.host.held.has(sandbox.id));
    await server.crash();
    server.host.guests.clear();
    await server.restart();
    const row = await server.sandboxes.get(server.principal, ref(sandbox));
    assert.equal(row.state, 'paused');
    assert.ok(row.autoDeleteAt !== null && row.guest === null);
    await server.sandboxes.resume(server.principal, ref(sandbox));
  });

  it('of a pause, and the machine with it, tells that the sandbox is lost if nothing is complete', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    let reached = false;
    server.host.onCheckpoint = () => {
      reached = true;
      return new Promise(() => {});
    };
    server.sandboxes.pause(server.principal, ref(sandbox)).catch(() => undefined);
    await until('it is being saved', () => reached);
    await server.crash();
    server.host.guests.clear();
    await server.restart();
    const row = await server.sandboxes.get(server.principal, ref(sandbox));
    assert.deepEqual([row.state, row.end?.reason], ['killed', 'host_rebooted']);
    await nothingSaved(server);
  });

  it('of a resume finds the sandbox paused', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.sandboxes.pause(server.principal, ref(sandbox));
    server.host.onRestore = () => new Promise(() => {});
    server.sandboxes.resume(server.principal, ref(sandbox)).catch(() => undefined);
    await until('it is being resumed', async () => (await state(server, sandbox)) === 'resuming');
    await server.crash();
    server.host.onRestore = async () => undefined;
    await server.restart();
    assert.equal(await state(server, sandbox), 'paused');
    await server.sandboxes.resume(server.principal, ref(sandbox));
  });

  it('of a restore over a running sandbox finds it running', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.sandboxes.snapshots.create(server.principal, ref(sandbox));
    server.host.onRestore = () => new Promise(() => {});
    server.sandboxes.snapshots.restoreInPlace(server.principal, ref(sandbox), null).catch(() => undefined);
    await until('it is being restored', async () => (await state(server, sandbox)) === 'resuming');
    await server.crash();
    server.host.onRestore = async () => undefined;
    await server.restart();
    assert.equal(await state(server, sandbox), 'running');
  });

  it('of a fork leaves no snapshot of it', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.onRestore = () => new Promise(() => {});
    server.sandboxes.forks.fork(server.principal, ref(sandbox), 2, {}, never).catch(() => undefined);
    await until('it is saved', () => server.host.saved.size === 1);
    await server.crash();
    server.host.onRestore = async () => undefined;
    await server.restart();
    await nothingSaved(server);
    assert.equal((await server.sandboxes.list(server.principal, { states: ['creating', 'running'], metadata: {}, limit: 10 })).total, 1);
  });
});

describe('time', () => {
  it('a period starts again with the resume; a paused sandbox has none', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 100 });
    assert.equal((await server.sandboxes.pause(server.principal, ref(sandbox))).endAt, null);
    server.clock.offset += 500_000;
    await server.sandboxes.setTimeout(server.principal, ref(sandbox), 70);
    assert.equal((await server.sandboxes.get(server.principal, ref(sandbox))).endAt, null);
    const resumed = await server.sandboxes.resume(server.principal, ref(sandbox));
    assert.ok(Math.abs((resumed.endAt ?? 0) - server.clock.now() - 70_000) < 1000);
  });

  it('the longest life and the longest pause hold over a restart', async () => {
    await using server = await Server.start();
    const capped = await server.create({ timeoutSeconds: 0, lifecycle: { ...lifecycle, maxLifetimeSeconds: 50 } });
    const forgotten = await server.create({ timeoutSeconds: 0, lifecycle: { ...lifecycle, autoDeleteSeconds: 20 } });
    for (const each of [capped, forgotten]) await server.sandboxes.pause(server.principal, ref(each));
    await server.crash();
    server.clock.offset += 30_000;
    await server.restart();
    await until('the forgotten one is gone', async () => (await state(server, forgotten)) === 'killed');
    assert.equal(await state(server, capped), 'paused');
    server.clock.offset += 30_000;
    await until('the capped one is gone', async () => (await state(server, capped)) === 'killed');
    const reasons = await Promise.all([capped, forgotten].map(async (each) => (await server.sandboxes.get(server.principal, ref(each))).end?.reason));
    assert.deepEqual(reasons, ['timeout', 'auto_deleted']);
    await nothingSaved(server);
  });

  it('a resume takes the longest pause away, and an update counts it from now', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 0, lifecycle: { ...lifecycle, autoDeleteSeconds: 20 } });
    await server.sandboxes.pause(server.principal, ref(sandbox));
    server.clock.offset += 15_000;
    const later = await server.sandboxes.update(server.principal, ref(sandbox), { autoDeleteSeconds: 60 });
    assert.ok(Math.abs((later.autoDeleteAt ?? 0) - server.clock.now() - 60_000) < 1000);
    const resumed = await server.sandboxes.resume(server.principal, ref(sandbox));
    assert.equal(resumed.autoDeleteAt, null);
    server.clock.offset += 90_000;
    await sleep(1200);
    assert.equal(await state(server, sandbox), 'running');
  });

  it('an update measures the timeout against the running period', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 0, lifecycle: { ...lifecycle, onTimeout: 'pause' } });
    server.clock.offset += 30_000;
    await server.sandboxes.update(server.principal, ref(sandbox), { timeoutSeconds: 20 });
    await until('it is paused', async () => (await state(server, sandbox)) === 'paused');
  });
});

describe('waking', () => {
  it('calls that come together cause one resume', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ lifecycle: { ...lifecycle, autoResume: true } });
    await server.sandboxes.pause(server.principal, ref(sandbox));
    server.host.onRestore = async () => void (await sleep(20));
    await Promise.all(Array.from({ length: 20 }, () => server.sandboxes.use(server.principal, ref(sandbox))));
    assert.equal(server.host.restored.length, 1);
  });

  it('one that meets a pause waits for it, and resumes', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ lifecycle: { ...lifecycle, autoResume: true } });
    server.host.onSaved = async () => void (await sleep(30));
    const pausing = server.sandboxes.pause(server.principal, ref(sandbox));
    await until('it is being paused', async () => (await state(server, sandbox)) === 'pausing');
    await server.sandboxes.use(server.principal, ref(sandbox));
    await pausing;
    assert.equal(await state(server, sandbox), 'running');
  });

  it('a paused sandbox is not counted, and a resume that does not fit is refused', async () => {
    await using server = await Server.start({ maxSandboxes: 1 });
    const sandbox = await server.create();
    await server.sandboxes.pause(server.principal, ref(sandbox));
    const other = await server.create();
    await assert.rejects(server.sandboxes.resume(server.principal, ref(sandbox)), { code: 'concurrency_limit' });
    assert.equal(await state(server, sandbox), 'paused');
    await server.sandboxes.kill(server.principal, ref(other));
    await server.sandboxes.resume(server.principal, ref(sandbox));
    await assert.rejects(server.create(), { code: 'concurrency_limit' });
  });

  it('what the operator paused goes on at the next start, and nothing else does', async () => {
    await using server = await Server.start();
    const [ours, theirs] = [await server.create(), await server.create()];
    await server.sandboxes.pause(server.principal, ref(theirs));
    assert.deepEqual(await server.sandboxes.pauseAll(), { paused: 1, failed: [] });
    await server.restart();
    assert.deepEqual(await server.sandboxes.resumeAll(), { resumed: 1, failed: [] });
    assert.deepEqual([await state(server, ours), await state(server, theirs)], ['running', 'paused']);
  });
});

describe('snapshots and copies', () => {
  it('an idempotency key names one snapshot', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    const made = await Promise.all([1, 2].map(() => server.sandboxes.snapshots.create(server.principal, ref(sandbox), { idempotencyKey: 'k' }).catch((error: PaddockError) => error.code)));
    const again = await server.sandboxes.snapshots.create(server.principal, ref(sandbox), { idempotencyKey: 'k' });
    assert.equal(again.replayed, true);
    assert.equal((await server.store.snapshots.all()).length, 1);
    assert.equal(made.length, 2);
  });

  it('a fork asks for room for all of them before anything is saved', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.room = 300 << 20;
    await assert.rejects(server.sandboxes.forks.fork(server.principal, ref(sandbox), 3, {}, never), { code: 'no_capacity' });
    assert.equal(server.host.saved.size, 0);
    assert.equal((await server.sandboxes.forks.fork(server.principal, ref(sandbox), 2, {}, never)).length, 2);
  });

  it('one fork that fails takes the others with it', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    let calls = 0;
    server.host.onRestore = async () => {
      if (++calls === 3) throw new PaddockError('no_capacity', 'no memory');
      await sleep(5);
    };
    await assert.rejects(server.sandboxes.forks.fork(server.principal, ref(sandbox), 4, {}, never), { code: 'no_capacity' });
    assert.deepEqual([...server.host.guests.keys()], [sandbox.id]);
    await nothingSaved(server);
  });

  it('processes keep what they had left, in a resume, a restore and a fork', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 0 });
    await server.processes.startBackground(server.principal, ref(sandbox), { cmd: 'cat', timeoutSeconds: 100 }, never);
    server.clock.offset += 40_000;
    await server.sandboxes.pause(server.principal, ref(sandbox));
    server.clock.offset += 1_000_000;
    await sleep(1100); // a deadline that was forgotten would fall due now
    await server.sandboxes.resume(server.principal, ref(sandbox));
    const [fork] = await server.sandboxes.forks.fork(server.principal, ref(sandbox), 1, {}, never);
    const left = async (): Promise<number[]> => (await server.store.processDeadlines.all()).map(({ at }) => Math.round((at - server.clock.now()) / 1000));
    for (const seconds of await left()) assert.ok(Math.abs(seconds - 60) <= 1, String(seconds));
    assert.equal((await left()).length, 2);
    server.clock.offset += 61_000;
    for (const each of [sandbox, fork!]) {
      await until('it has timed out', async () => (await server.host.memory(each.id).processes(never)).every((process) => !process.running));
    }
  });

  it('a foreground command that a pause interrupts goes on, with its deadline', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 0 });
    const running = server.processes.run(server.principal, ref(sandbox), { cmd: 'cat', timeoutSeconds: 100 }, never);
    running.catch(() => undefined);
    await until('it runs', async () => (await server.host.memory(sandbox.id).processes(never)).length === 1);
    await server.sandboxes.pause(server.principal, ref(sandbox));
    await assert.rejects(running, { code: 'conflict', message: /paused/ });
    await server.sandboxes.resume(server.principal, ref(sandbox));
    const living = async (): Promise<boolean> => (await server.host.memory(sandbox.id).processes(never)).some((process) => process.running);
    assert.equal(await living(), true);
    await server.restart();
    await sleep(50);
    assert.equal(await living(), true, 'a restart took it for a command whose request was lost');
    server.clock.offset += 101_000;
    await until('it has timed out', async () => !(await living()));
  });

  it('a snapshot may be deleted while another one has its files', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.sandboxes.pause(server.principal, ref(sandbox));
    const { snapshot } = await server.sandboxes.snapshots.create(server.principal, ref(sandbox));
    await server.sandboxes.kill(server.principal, ref(sandbox));
    await until('the pause is gone', async () => (await server.store.snapshots.all()).length === 1);
    assert.equal(server.host.saved.size, 1);
    const copy = await server.sandboxes.forks.createFrom(server.principal, snapshot.id, { wire: 'declaw' }, never);
    assert.equal(copy.sourceSnapshotId, snapshot.id);
    await server.sandboxes.snapshots.delete(server.principal, snapshot.id);
    assert.equal(server.host.saved.size, 0);
  });
});
