import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from './errors.ts';
import type { SandboxId } from './ids.ts';
import type { Sandbox } from './sandbox.ts';
import { Server, until } from './testing/server.ts';

const ref = (sandbox: Sandbox): { readonly id: SandboxId } => ({ id: sandbox.id });
const everything = { states: ['creating', 'running', 'killing', 'killed'] as const, metadata: {}, limit: 100 };

/** Nothing of any sandbox is left, neither on the machine nor among the rows of the living. */
async function assertNothingLeft(server: Server): Promise<void> {
  assert.equal(server.host.guests.size, 0);
  assert.deepEqual(await server.store.sandboxes.inStates(['creating', 'running', 'killing']), []);
}

const patient = { onTimeout: 'kill', autoResume: false, maxLifetimeSeconds: null, autoDeleteSeconds: null } as const;

describe('creating a sandbox', () => {
  it('answers with a running sandbox whose guest has its identity', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ envs: { MODE: 'x', LANG: 'de' }, metadata: { owner: 'me' }, timeoutSeconds: 60 });
    assert.equal(sandbox.state, 'running');
    assert.equal(sandbox.endAt, (sandbox.startedAt ?? 0) + 60_000);
    assert.deepEqual(sandbox.template, { id: 'tpl-base', name: 'base', digest: 'd'.repeat(64) });
    const identity = server.host.specs[0]?.identity;
    assert.equal(identity?.sandboxId, sandbox.id);
    assert.equal(identity.hostname, `sbx-${sandbox.shortId}`);
    assert.deepEqual(identity.env, { LANG: 'de', DECLAW_SANDBOX: 'true', DECLAW_SANDBOX_ID: `sbx-${sandbox.shortId}`, MODE: 'x' });
    assert.match(identity.agentToken, /^envd-/);
    assert.deepEqual(await server.sandboxes.get(server.principal, ref(sandbox)), sandbox);
    assert.deepEqual(await server.sandboxes.get(server.principal, { shortId: sandbox.shortId }), sandbox);
  });

  it('leaves nothing behind when the machine fails, and says what it said', async () => {
    await using server = await Server.start();
    server.host.onProvision = async () => {
      throw new PaddockError('no_capacity', 'no memory is left on this machine');
    };
    await assert.rejects(server.create(), { code: 'no_capacity', message: 'no memory is left on this machine' });
    assert.equal((await server.sandboxes.list(server.principal, everything)).total, 0);
    await assertNothingLeft(server);
  });

  it('leaves nothing behind when its caller leaves', async () => {
    await using server = await Server.start();
    const caller = new AbortController();
    server.host.onProvision = async (_spec, signal) => {
      caller.abort();
      await sleep(5);
      signal.throwIfAborted();
    };
    await assert.rejects(server.create({}, caller.signal), { code: 'conflict' });
    assert.equal((await server.sandboxes.list(server.principal, everything)).total, 0);
    await assertNothingLeft(server);
  });

  it('leaves nothing behind when the guest dies in the very moment', async () => {
    await using server = await Server.start({ maxSandboxes: 1 });
    server.host.onProvision = async ({ identity }) => {
      void sleep(0).then(() => server.host.kill(identity.sandboxId, { reason: 'runtime_crashed', detail: 'boom' }));
    };
    // Where exactly the death falls differs from try to try.
    for (let i = 0; i < 20; i++) {
      const result = await server.create().catch((error: unknown) => error as PaddockError);
      if (result instanceof PaddockError) assert.equal(result.detail.reason, 'runtime_crashed');
      else await until('the death is recorded', async () => (await server.sandboxes.get(server.principal, ref(result))).state === 'killed');
    }
    await assertNothingLeft(server);
  });

  it('is undone again and again until the machine has let go', async () => {
    await using server = await Server.start();
    server.host.onDestroy = async () => {
      throw new Error('busy');
    };
    server.host.onProvision = async () => {
      throw new Error('no');
    };
    await assert.rejects(server.create(), { code: 'internal', message: 'no' });
    server.host.onDestroy = async () => undefined;
    server.clock.offset += 6000;
    await until('the row is gone', async () => (await server.sandboxes.list(server.principal, everything)).total === 0);
  });

  it('refuses more sandboxes than the limit, also when all are asked for at once', async () => {
    await using server = await Server.start({ maxSandboxes: 3 });
    const results = await Promise.allSettled(Array.from({ length: 8 }, () => server.create()));
    const made = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    assert.equal(made.length, 3);
    for (const result of results) {
      if (result.status === 'rejected') assert.equal((result.reason as PaddockError).code, 'concurrency_limit');
    }
    const [first] = made;
    assert.ok(first);
    await server.sandboxes.kill(server.principal, ref(first));
    await server.create();
  });

  const refusals: [string, Parameters<Server['create']>[0], string, RegExp][] = [
    ['a fraction of a second', { timeoutSeconds: 1.5 }, 'timeout', /whole seconds/],
    ['a negative timeout', { timeoutSeconds: -1 }, 'timeout', /whole seconds/],
    ['a timeout above the limit', { timeoutSeconds: 2_592_001 }, 'timeout', /the limit is 2592000/],
    ['an environment name with =', { envs: { 'A=B': '1' } }, 'envs', /names are not empty and have no =/],
    ['an environment value with NUL', { envs: { A: 'x\0' } }, 'envs.A', /NUL/],
    ['too much environment', { envs: { A: 'x'.repeat(131_000) } }, 'envs', /131001 bytes; the limit is 131000/],
    ['too much metadata', { metadata: { a: 'x'.repeat(65_536) } }, 'metadata', /65537 bytes; the limit is 65536/],
    ['too many metadata entries', { metadata: Object.fromEntries(Array.from({ length: 257 }, (_, i) => [`k${i}`, ''])) }, 'metadata', /257 entries; the limit is 256/],
    ['a longest life of nothing', { lifecycle: { ...patient, maxLifetimeSeconds: 0 } }, 'lifecycle.max_lifetime_seconds', /from 1/],
    ['a longest life above the limit', { lifecycle: { ...patient, maxLifetimeSeconds: 2_592_001 } }, 'lifecycle.max_lifetime_seconds', /the limit is 2592000/],
    ['a pause shorter than nothing', { lifecycle: { ...patient, autoDeleteSeconds: -1 } }, 'lifecycle.auto_delete_seconds', /whole seconds/],
    ['a rule that is not enforced', { policy: { security: { customPolicy: { enabled: true } } } }, 'security.custom_policy.enabled', /not available yet/],
  ];
  for (const [what, input, field, message] of refusals) {
    it(`refuses ${what}, naming the field`, async () => {
      await using server = await Server.start();
      await assert.rejects(server.create(input), (error: PaddockError) => {
        assert.equal(error.code, 'invalid_argument');
        assert.equal(error.detail.field, field);
        assert.match(error.message, message);
        return true;
      });
      assert.equal(server.host.specs.length, 0);
    });
  }

  it('refuses a timeout that no date can hold, also without a limit', async () => {
    await using server = await Server.start({ maxTimeoutSeconds: Number.MAX_SAFE_INTEGER });
    await assert.rejects(server.create({ timeoutSeconds: Number.MAX_SAFE_INTEGER }), { code: 'invalid_argument', message: /the limit is 3153600000$/ });
    await server.create({ timeoutSeconds: 3_153_600_000 });
  });

  it('names the templates there are when one is unknown', async () => {
    await using server = await Server.start();
    await assert.rejects(server.create({ templateName: 'nope' }), { code: 'not_found', message: 'there is no template "nope"; there is: base' });
  });

  it('takes base under the name asked for when it was told to', async () => {
    await using server = await Server.start({ unknownTemplate: 'base' });
    const { template } = await server.create({ templateName: 'mine' });
    assert.deepEqual(template, { id: 'tpl-mine', name: 'mine', digest: 'd'.repeat(64) });
  });

  it('takes base for an empty name, and a template by its id', async () => {
    await using server = await Server.start();
    assert.equal((await server.create({ templateName: '' })).template.name, 'base');
    assert.equal((await server.create({ templateName: 'tpl-base' })).template.name, 'base');
  });
});

describe('ending a sandbox', () => {
  it('says true once, and keeps a tombstone with the reason', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    assert.deepEqual(await server.sandboxes.kill(server.principal, ref(sandbox)), { killed: true });
    assert.deepEqual(await server.sandboxes.kill(server.principal, ref(sandbox)), { killed: false });
    const tombstone = await server.sandboxes.get(server.principal, ref(sandbox));
    assert.equal(tombstone.state, 'killed');
    assert.equal(tombstone.end?.reason, 'killed');
    assert.equal(tombstone.guest, null);
    await assert.rejects(server.sandboxes.use(server.principal, ref(sandbox)), (error: PaddockError) => {
      assert.equal(error.code, 'gone');
      assert.match(error.message, /^the sandbox has ended: it was killed at \d{4}-.*Z$/);
      return true;
    });
    await assertNothingLeft(server);
  });

  it('is done once when two ask, and both wait for the end', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    let destroyed = 0;
    server.host.onDestroy = async () => {
      await sleep(20);
      destroyed += 1;
    };
    const results = await Promise.all(
      [1, 2, 3].map(async () => {
        const { killed } = await server.sandboxes.kill(server.principal, ref(sandbox));
        assert.equal((await server.sandboxes.get(server.principal, ref(sandbox))).state, 'killed');
        return killed;
      }),
    );
    assert.deepEqual(results.sort(), [false, false, true]);
    assert.equal(destroyed, 1);
  });

  it('works while it is being created: the create fails, and nothing is left', async () => {
    await using server = await Server.start();
    const provisioning = Promise.withResolvers<SandboxId>();
    server.host.onProvision = async ({ identity }, signal) => {
      provisioning.resolve(identity.sandboxId);
      await sleep(10_000, undefined, { signal });
    };
    const creating = server.create();
    creating.catch(() => undefined);
    const id = await provisioning.promise;
    await until('the row is there', async () => (await server.store.sandboxes.inStates(['creating'])).length === 1);
    assert.deepEqual(await server.sandboxes.kill(server.principal, { id }), { killed: true });
    await assert.rejects(creating, { code: 'conflict', message: 'the sandbox was killed while it was being started' });
    assert.equal((await server.sandboxes.get(server.principal, { id })).state, 'killed');
    await assertNothingLeft(server);
  });

  it('works while it is being created on a machine that does not listen to the abort', async () => {
    await using server = await Server.start();
    const provisioning = Promise.withResolvers<SandboxId>();
    server.host.onProvision = async ({ identity }) => {
      provisioning.resolve(identity.sandboxId);
      await sleep(50);
    };
    const creating = server.create();
    creating.catch(() => undefined);
    const id = await provisioning.promise;
    await until('the row is there', async () => (await server.store.sandboxes.inStates(['creating'])).length === 1);
    await server.sandboxes.kill(server.principal, { id });
    await assert.rejects(creating, { code: 'conflict' });
    await assertNothingLeft(server);
  });

  it('goes on in the background when nobody wants to wait', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.onDestroy = () => sleep(20);
    await server.sandboxes.killLater(server.principal, ref(sandbox));
    await assert.rejects(server.sandboxes.use(server.principal, ref(sandbox)), { code: 'gone' });
    await until('it is killed', async () => (await server.sandboxes.get(server.principal, ref(sandbox))).state === 'killed');
    await assertNothingLeft(server);
  });

  it('is tried again when the machine fails, and says so', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.onDestroy = async () => {
      throw new Error('device busy');
    };
    await assert.rejects(server.sandboxes.kill(server.principal, ref(sandbox)), {
      code: 'internal',
      message: 'the sandbox could not be taken down yet, and is being tried again: device busy',
    });
    assert.equal((await server.sandboxes.get(server.principal, ref(sandbox))).state, 'killing');
    server.host.onDestroy = async () => undefined;
    server.clock.offset += 6000;
    await until('it is killed', async () => (await server.sandboxes.get(server.principal, ref(sandbox))).state === 'killed');
    await assertNothingLeft(server);
  });

  it('follows the death of its guest, with the reason and at most 4 KiB of detail', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.kill(sandbox.id, { reason: 'out_of_memory', detail: `${'ü'.repeat(4096)}\nlast line` });
    await until('it is killed', async () => (await server.sandboxes.get(server.principal, ref(sandbox))).state === 'killed');
    const { end } = await server.sandboxes.get(server.principal, ref(sandbox));
    assert.equal(end?.reason, 'out_of_memory');
    assert.ok(Buffer.byteLength(end.detail) <= 4096);
    assert.ok(end.detail.startsWith('ü') && end.detail.endsWith('\nlast line'));
    await assert.rejects(server.sandboxes.use(server.principal, ref(sandbox)), /it used more memory than it may, at .* \(last line\)/);
    await assertNothingLeft(server);
  });

  it('can be asked for everything at once', async () => {
    await using server = await Server.start();
    await Promise.all(Array.from({ length: 30 }, () => server.create()));
    assert.equal(await server.sandboxes.killAll('stopped'), 30);
    await assertNothingLeft(server);
  });
});

describe('the timeout of a sandbox', () => {
  it('ends it within a second, with the reason', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 1 });
    const begun = performance.now();
    await until('it is killed', async () => (await server.sandboxes.get(server.principal, ref(sandbox))).state === 'killed');
    const took = performance.now() - begun;
    assert.ok(took > 900 && took < 2000, `took ${took} ms`);
    const { end } = await server.sandboxes.get(server.principal, ref(sandbox));
    assert.deepEqual(end, { at: sandbox.endAt, reason: 'timeout', detail: '' });
    await assert.rejects(server.sandboxes.use(server.principal, ref(sandbox)), {
      code: 'gone',
      message: `the sandbox has ended: its timeout passed at ${new Date(sandbox.endAt ?? 0).toISOString()}`,
    });
    await assertNothingLeft(server);
  });

  it('starts again from now when it is set, and 0 takes it away', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 60 });
    server.clock.offset += 50_000;
    const longer = await server.sandboxes.setTimeout(server.principal, ref(sandbox), 60);
    assert.equal(longer.timeoutSeconds, 60);
    assert.ok((longer.endAt ?? 0) >= (sandbox.endAt ?? 0) + 50_000);
    server.clock.offset += 20_000;
    await sleep(1100);
    assert.equal((await server.sandboxes.get(server.principal, ref(sandbox))).state, 'running');
    const endless = await server.sandboxes.setTimeout(server.principal, ref(sandbox), 0);
    assert.equal(endless.endAt, null);
    server.clock.offset += 86_400_000;
    await sleep(1100);
    assert.equal((await server.sandboxes.get(server.principal, ref(sandbox))).state, 'running');
  });

  it('does not end a sandbox whose deadline was moved in the last moment', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 60 });
    server.storeDelay = () => sleep(50);
    server.clock.offset += 60_001;
    // The deadline fires within a second, and waits for the store; meanwhile another server moves it.
    await sleep(1020);
    const endAt = server.clock.now() + 60_000;
    await server.store.sandboxes.transition(sandbox.id, ['running'], 'running', { endAt });
    server.storeDelay = async () => undefined;
    await sleep(200);
    assert.equal((await server.sandboxes.get(server.principal, ref(sandbox))).state, 'running');
    server.clock.offset += 60_001;
    await until('the moved deadline is kept too', async () => (await server.sandboxes.get(server.principal, ref(sandbox))).state === 'killed');
  });

  it('cannot be set on a sandbox that has ended', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.sandboxes.kill(server.principal, ref(sandbox));
    await assert.rejects(server.sandboxes.setTimeout(server.principal, ref(sandbox), 60), { code: 'gone' });
  });
});

describe('another team', () => {
  it('finds none of the sandboxes', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    const stranger = { teamId: 'another' as never, keyId: 'key' };
    await assert.rejects(server.sandboxes.get(stranger, ref(sandbox)), { code: 'not_found' });
    await assert.rejects(server.sandboxes.kill(stranger, ref(sandbox)), { code: 'not_found' });
    await assert.rejects(server.sandboxes.use(stranger, ref(sandbox)), { code: 'not_found' });
    assert.equal((await server.sandboxes.list(stranger, everything)).total, 0);
  });
});

describe('a restart of the server', () => {
  it('keeps what runs, with its deadline', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 60 });
    await server.restart();
    assert.deepEqual(await server.sandboxes.get(server.principal, ref(sandbox)), sandbox);
    await server.sandboxes.use(server.principal, ref(sandbox));
    server.clock.offset += 61_000;
    await until('it is killed', async () => (await server.sandboxes.get(server.principal, ref(sandbox))).state === 'killed');
  });

  it('carries out the deadlines that passed meanwhile', async () => {
    await using server = await Server.start();
    const sandbox = await server.create({ timeoutSeconds: 60 });
    await server.crash();
    server.clock.offset += 61_000;
    await server.restart();
    await until('it is killed', async () => (await server.sandboxes.get(server.principal, ref(sandbox))).state === 'killed');
    assert.equal((await server.sandboxes.get(server.principal, ref(sandbox))).end?.reason, 'timeout');
  });

  it('marks what was lost with the reason the machine gives', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.crash();
    server.host.guests.clear();
    await server.restart();
    const { state, end } = await server.sandboxes.get(server.principal, ref(sandbox));
    assert.equal(state, 'killed');
    assert.equal(end?.reason, 'host_rebooted');
  });

  it('removes what was half made', async () => {
    await using server = await Server.start();
    const provisioning = Promise.withResolvers<void>();
    server.host.onProvision = async () => {
      provisioning.resolve();
      await sleep(30);
    };
    const creating = server.create();
    creating.catch(() => undefined);
    await provisioning.promise;
    await until('the row is there', async () => (await server.store.sandboxes.inStates(['creating'])).length === 1);
    await server.crash();
    await creating.catch(() => undefined);
    server.host.onProvision = async () => undefined;
    await server.restart();
    assert.equal((await server.sandboxes.list(server.principal, everything)).total, 0);
    await assertNothingLeft(server);
  });

  it('finishes an end that was begun', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    server.host.onDestroy = async () => {
      throw new Error('the server was killed here');
    };
    await server.sandboxes.killLater(server.principal, ref(sandbox));
    await server.crash();
    server.host.onDestroy = async () => undefined;
    await server.restart();
    const { state, end } = await server.sandboxes.get(server.principal, ref(sandbox));
    assert.equal(state, 'killed');
    assert.equal(end?.reason, 'killed');
    await assertNothingLeft(server);
  });

  it('removes tombstones after a week', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.sandboxes.kill(server.principal, ref(sandbox));
    server.clock.offset += 6 * 86_400_000;
    await server.restart();
    assert.equal((await server.sandboxes.get(server.principal, ref(sandbox))).state, 'killed');
    server.clock.offset += 86_400_001;
    await server.restart();
    await assert.rejects(server.sandboxes.get(server.principal, ref(sandbox)), { code: 'not_found' });
  });
});

describe('the story of a sandbox', () => {
  it('is told by its events', async () => {
    await using server = await Server.start();
    const sandbox = await server.create();
    await server.sandboxes.setTimeout(server.principal, ref(sandbox), 60);
    await server.sandboxes.kill(server.principal, ref(sandbox));
    await server.events.flush();
    const told = await server.store.events.list(server.principal.teamId, sandbox.id, 10);
    assert.deepEqual(told.map(({ category, name }) => `${category} ${name}`), ['lifecycle created', 'lifecycle timeout_changed', 'lifecycle ended']);
    assert.equal(told[2]?.detail['reason'], 'killed');
  });
});
