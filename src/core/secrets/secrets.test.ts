import assert from 'node:assert/strict';
import Database from 'better-sqlite3';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { ConnectionEvent } from '../network/egress.ts';
import type { InspectionEvent } from '../network/inspection.ts';
import type { LogEntry, LogPosition } from '../networks.ts';
import { PaddockError } from '../errors.ts';
import type { SandboxId, TeamId } from '../ids.ts';
import type { Sandbox } from '../sandbox.ts';
import { createInput, never, Server, until } from '../testing/server.ts';
import { parseHostPattern } from './hosts.ts';
import { secretRule } from './rules.ts';
import type { NewSecret } from './secrets.ts';

const fields = { hosts: 'hosts', header: 'header', prefix: 'prefix', username: 'username', headers: 'headers', query: 'query' };
const rule = secretRule({ hosts: [parseHostPattern('api.example.com', 'hosts')], place: { kind: 'bearer' } }, fields);
const key = (changes: Partial<NewSecret> = {}): NewSecret => ({ environment: 'prod', name: 'KEY', value: 'real-value-1', provider: null, rules: [rule], rotationIntervalDays: null, ...changes });
const wants = (...names: string[]) => ({ secrets: { field: 'secrets', bindings: names.map((name) => ({ variable: `${name}_VAR`, environment: 'prod', name, when: 'stand-in' as const })) } });

/** What the proxy was told last, as text of value by stand-in. */
function armed(server: Server, { id }: Pick<Sandbox, 'id'>): Record<string, string | null> {
  return Object.fromEntries((server.host.inspections.get(id)?.secrets ?? []).map(({ standIn, value }) => [standIn, value]));
}
const variable = (server: Server, { id }: Pick<Sandbox, 'id'>, name = 'KEY_VAR'): string => server.host.identities.get(id)?.env[name] ?? '';
const code = (error: unknown): string => PaddockError.from(error).code;

describe('a sandbox with a secret', () => {
  it('has a stand-in in its environment, and the proxy the value; a sandbox without has a certificate only', async () => {
    await using server = await Server.start();
    await server.secrets.create(server.principal, key());
    const sandbox = await server.create(wants('KEY'));
    const standIn = variable(server, sandbox);
    assert.match(standIn, /^ssrv_proxy_[A-Za-z0-9]{43}$/);
    assert.deepEqual(armed(server, sandbox), { [standIn]: 'real-value-1' });
    const spec = server.host.specs.at(-1)!;
    assert.match(spec.identity.certificate!, /^certificate \d+$/);
    assert.equal(spec.inspection?.authority?.certificate, spec.identity.certificate);
    assert.ok(!JSON.stringify(spec.identity).includes('real-value-1'));
    const plain = await server.create();
    assert.equal(server.host.inspections.get(plain.id), null);
    assert.match(server.host.identities.get(plain.id)!.certificate!, /^certificate \d+$/);
    assert.notEqual(server.host.identities.get(plain.id)!.certificate, spec.identity.certificate);
  });

  it('uses another value as soon as the secret is rotated, and none as soon as it is deleted', async () => {
    await using server = await Server.start();
    const secret = await server.secrets.create(server.principal, key());
    const sandboxes = await Promise.all([server.create(wants('KEY')), server.create(wants('KEY'))]);
    await server.secrets.rotate(server.principal, secret.id, 'real-value-2');
    for (const sandbox of sandboxes) assert.deepEqual(Object.values(armed(server, sandbox)), ['real-value-2']);
    await server.secrets.delete(server.principal, secret.id);
    for (const sandbox of sandboxes) assert.deepEqual(armed(server, sandbox), { [variable(server, sandbox)]: null });
    assert.deepEqual((await server.secretAttachments.list(sandboxes[0]!)).map(({ revoked }) => revoked), [true]);
    // The name is free again, and the dead stand-ins stay dead.
    await server.secrets.create(server.principal, key({ value: 'real-value-3' }));
    await server.restart();
    for (const sandbox of sandboxes) assert.deepEqual(Object.values(armed(server, sandbox)), [null]);
  });

  it('may be given another while it runs, and have it taken away', async () => {
    await using server = await Server.start();
    await server.secrets.create(server.principal, key());
    const sandbox = await server.create();
    const attach = (name: string, to = 'KEY_VAR') => server.secretAttachments.attach(server.principal, { id: sandbox.id }, { variable: to, environment: 'prod', name, when: 'stand-in' });
    await attach('KEY');
    const standIn = variable(server, sandbox);
    assert.deepEqual(armed(server, sandbox), { [standIn]: 'real-value-1' });
    await assert.rejects(attach('KEY'), { code: 'conflict' });
    await assert.rejects(attach('NONE', 'OTHER'), { code: 'invalid_argument', detail: { reason: 'secret_not_found' } });
    await assert.rejects(attach('KEY', '9X'), { code: 'invalid_argument' });
    await server.secretAttachments.detach(server.principal, { id: sandbox.id }, 'KEY_VAR');
    assert.equal(variable(server, sandbox), '');
    assert.deepEqual(armed(server, sandbox), { [standIn]: null }); // still told apart from any text
    await assert.rejects(server.secretAttachments.detach(server.principal, { id: sandbox.id }, 'KEY_VAR'), { code: 'not_found' });
    await attach('KEY');
    assert.notEqual(variable(server, sandbox), standIn);
    for (let i = 1; i < 32; i++) await attach('KEY', `V${i}`);
    await assert.rejects(attach('KEY', 'V32'), { code: 'invalid_argument', message: /limit is 32/ });
  });

  it('keeps its stand-ins over a pause, and gets what was changed meanwhile', async () => {
    await using server = await Server.start();
    const secret = await server.secrets.create(server.principal, key());
    const sandbox = await server.create(wants('KEY'));
    const standIn = variable(server, sandbox);
    await server.sandboxes.pause(server.principal, { id: sandbox.id });
    await until('the guest is let go', () => !server.host.guests.has(sandbox.id));
    await server.secrets.rotate(server.principal, secret.id, 'real-value-2');
    await server.sandboxes.resume(server.principal, { id: sandbox.id });
    assert.equal(variable(server, sandbox), standIn);
    assert.deepEqual(armed(server, sandbox), { [standIn]: 'real-value-2' });
    await server.restart();
    assert.deepEqual(armed(server, sandbox), { [standIn]: 'real-value-2' });
  });

  it('does not get back by a restore in place what was taken from it', async () => {
    await using server = await Server.start();
    await server.secrets.create(server.principal, key());
    await server.secrets.create(server.principal, key({ name: 'STAYS' }));
    const sandbox = await server.create(wants('KEY', 'STAYS'));
    const [old, stays] = [variable(server, sandbox), variable(server, sandbox, 'STAYS_VAR')];
    const { snapshot } = await server.sandboxes.snapshots.create(server.principal, { id: sandbox.id });
    await server.secretAttachments.detach(server.principal, { id: sandbox.id }, 'KEY_VAR');
    await server.sandboxes.snapshots.restoreInPlace(server.principal, { id: sandbox.id }, snapshot.id);
    assert.equal(variable(server, sandbox), '');
    assert.deepEqual(armed(server, sandbox), { [old]: null, [stays]: 'real-value-1' });
  });

  it('hands them on to forks: fresh ones for new processes, its own for those that run on', async () => {
    await using server = await Server.start();
    await server.secrets.create(server.principal, key());
    await server.secrets.create(server.principal, key({ name: 'GONE' }));
    const source = await server.create(wants('KEY', 'GONE'));
    const old = variable(server, source);
    await server.secretAttachments.detach(server.principal, { id: source.id }, 'GONE_VAR');
    const [fork] = await server.sandboxes.forks.fork(server.principal, { id: source.id }, 1, {}, never);
    const fresh = variable(server, fork!);
    assert.ok(fresh !== '' && fresh !== old);
    assert.deepEqual(armed(server, fork!), { [old]: 'real-value-1', [fresh]: 'real-value-1' });
    assert.equal(variable(server, fork!, 'GONE_VAR'), '');
    assert.equal(server.host.identities.get(fork!.id)!.certificate, server.host.identities.get(source.id)!.certificate);
    // Taken from one, it stays with the other; and what was inherited goes with the variable.
    await server.secretAttachments.detach(server.principal, { id: fork!.id }, 'KEY_VAR');
    assert.deepEqual(armed(server, fork!), { [old]: null, [fresh]: null });
    assert.equal(armed(server, source)[old], 'real-value-1');
  });

  it('is made anew from a snapshot after its sandbox is long gone, but not with what was taken from it', async () => {
    await using server = await Server.start();
    await server.secrets.create(server.principal, key());
    await server.secrets.create(server.principal, key({ name: 'LATER', value: 'later' }));
    const source = await server.create(wants('KEY'));
    const certificate = server.host.identities.get(source.id)!.certificate;
    const { snapshot } = await server.sandboxes.snapshots.create(server.principal, { id: source.id });
    server.clock.offset += 5;
    await server.secretAttachments.attach(server.principal, { id: source.id }, { variable: 'LATER_VAR', environment: 'prod', name: 'LATER', when: 'stand-in' });
    await server.sandboxes.kill(server.principal, { id: source.id });
    server.clock.offset += 8 * 86_400_000;
    await server.restart(); // purges
    assert.equal(await server.store.sandboxes.find(null, { id: source.id }), null);
    const copy = await server.sandboxes.forks.createFrom(server.principal, snapshot.id, { wire: 'declaw' }, never);
    assert.equal(armed(server, copy)[variable(server, copy)], 'real-value-1');
    assert.equal(variable(server, copy, 'LATER_VAR'), '');
    assert.equal(server.host.identities.get(copy.id)!.certificate, certificate);
    const other = await server.sandboxes.forks.createFrom(server.principal, snapshot.id, { wire: 'declaw', ...wants('LATER'), envs: { KEY_VAR: 'mine' } }, never);
    assert.deepEqual(Object.values(armed(server, other)), ['later']);
    assert.equal(variable(server, other), 'mine');
  });
});

describe('attacks on secrets', () => {
  it('another team finds no secret by id or name, binds none and learns nothing', async () => {
    await using server = await Server.start();
    const secret = await server.secrets.create(server.principal, key());
    const stranger = await otherTeam(server);
    const { secrets } = server;
    for (const attempt of [
      () => secrets.get(stranger, secret.id), () => secrets.named(stranger, 'prod', 'KEY'), () => secrets.rotate(stranger, secret.id, 'x'), () => secrets.replaceRules(stranger, secret.id, [rule]), () => secrets.delete(stranger, secret.id),
    ]) await assert.rejects(attempt(), { code: 'not_found' });
    assert.deepEqual((await secrets.list(stranger)).items, []);
    await assert.rejects(server.sandboxes.create(stranger, createInput(wants('KEY')), never), { code: 'invalid_argument', detail: { reason: 'secret_not_found' } });
    const sandbox = await server.create(wants('KEY'));
    await assert.rejects(server.secretAttachments.attach(stranger, { id: sandbox.id }, { variable: 'X', environment: 'prod', name: 'KEY', when: 'stand-in' }), { code: 'not_found' });
    await assert.rejects(server.secretAttachments.detach(stranger, { id: sandbox.id }, 'KEY_VAR'), { code: 'not_found' });
    // Its own secret of the same name is another one.
    await secrets.create(stranger, key({ value: 'theirs' }));
    const theirs = await server.sandboxes.create(stranger, createInput(wants('KEY')), never);
    assert.deepEqual(Object.values(armed(server, theirs)), ['theirs']);
    assert.deepEqual(Object.values(armed(server, sandbox)), ['real-value-1']);
  });

  it('a row that was altered is refused, told, and harms no other', async () => {
    await using server = await Server.start();
    for (const name of ['A', 'B', 'C', 'D']) await server.secrets.create(server.principal, key({ name, value: `value of ${name}` }));
    const sandbox = await server.create(wants('A', 'B', 'C', 'D'));
    const standIns = Object.fromEntries(['A', 'B', 'C', 'D'].map((name) => [name, variable(server, sandbox, `${name}_VAR`)]));
    await server.crash();
    const raw = new Database(join(server.directory, 'paddock.db'));
    // Wider hosts; another's value; a binding that names another secret.
    raw.prepare("update secrets set rules = replace(rules, 'api.example.com', 'evil.example.com') where name = 'A'").run();
    raw.prepare("update secrets set value_sealed = (select value_sealed from secrets where name = 'D') where name = 'B'").run();
    raw.prepare("update secret_bindings set secret_id = (select id from secrets where name = 'D') where variable = 'C_VAR'").run();
    raw.close();
    await server.restart();
    const entry = server.host.inspections.get(sandbox.id)!;
    assert.deepEqual(Object.fromEntries(entry.secrets.map(({ standIn, value }) => [standIn, value])), { [standIns['A']!]: null, [standIns['B']!]: null, [standIns['D']!]: 'value of D' });
    assert.ok(!JSON.stringify(entry).includes('evil.example.com'));
    await server.events.flush();
    const told = (await server.store.events.list(sandbox.teamId, sandbox.id, 100)).filter(({ name }) => name === 'secret_unreadable_failed');
    assert.equal(told.length, 3);
    // A new value must not be sealed for the attacker's hosts.
    const altered = await server.secrets.named(server.principal, 'prod', 'A');
    await assert.rejects(server.secrets.rotate(server.principal, altered.id, 'another value'), { code: 'unprocessable', message: /^the secret cannot be changed: .* Delete it and store it again$/ });
    await assert.rejects(server.secrets.replaceRules(server.principal, altered.id, [rule]), { code: 'unprocessable' });
    assert.ok(!Object.values(armed(server, sandbox)).includes('another value'));
    const damaged = new Database(join(server.directory, 'paddock.db'));
    damaged.prepare("update secrets set rules = '{' where name = 'A'").run();
    damaged.close();
    assert.equal((await server.secrets.list(server.principal)).items.length, 4);
    const healthy = await server.create(wants('D'));
    assert.deepEqual(Object.values(armed(server, healthy)), ['value of D']);
  });

  it('a certificate that was put in the place of a sandbox’s own in the database is not trusted', async () => {
    await using server = await Server.start();
    await server.secrets.create(server.principal, key());
    const sandbox = await server.create(wants('KEY'));
    await server.sandboxes.pause(server.principal, { id: sandbox.id });
    await until('the guest is let go', () => !server.host.guests.has(sandbox.id));
    const raw = new Database(join(server.directory, 'paddock.db'));
    raw.prepare("update authorities set certificate = 'of the attacker'").run();
    raw.close();
    await server.sandboxes.resume(server.principal, { id: sandbox.id });
    assert.equal(server.host.identities.get(sandbox.id)?.certificate, null);
    assert.equal(server.host.inspections.get(sandbox.id), null); // nothing is opened, so no value goes out
    await server.events.flush();
    assert.equal((await server.store.events.search(sandbox.teamId, { categories: ['admin'], text: 'authority_unreadable', descending: true, limit: 9, offset: 0 })).total > 0, true);
  });

  it('a secret that is revoked while a sandbox is created or resumed is not in force afterwards', async () => {
    await using server = await Server.start();
    const first = await server.secrets.create(server.principal, key());
    const reached = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    server.host.onProvision = async () => {
      reached.resolve();
      await goOn.promise;
    };
    const creating = server.create(wants('KEY'));
    await reached.promise;
    let answered = false;
    const deleting = server.secrets.delete(server.principal, first.id).then(() => (answered = true));
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal(answered, false, 'it was answered while the old value was still on its way');
    goOn.resolve();
    const sandbox = await creating;
    await deleting;
    assert.deepEqual(Object.values(armed(server, sandbox)), [null]);
  });

  it('a proxy that does not answer makes a revocation fail, which is tried again until it holds', async () => {
    await using server = await Server.start();
    const secret = await server.secrets.create(server.principal, key());
    const sandbox = await server.create(wants('KEY'));
    server.host.onSetInspection = async () => {
      throw new PaddockError('no_capacity', 'the proxy is away');
    };
    await assert.rejects(server.secrets.delete(server.principal, secret.id), { code: 'no_capacity', message: /not yet in force in 1 of 1 sandboxes/ });
    server.host.onSetInspection = async () => undefined;
    await until('it is in force', () => Object.values(armed(server, sandbox)).every((value) => value === null));
  });

  it('an attachment that cannot be put in force leaves nothing', async () => {
    await using server = await Server.start();
    await server.secrets.create(server.principal, key());
    const sandbox = await server.create();
    server.host.onSetInspection = async () => {
      throw new PaddockError('no_capacity', 'the proxy is away');
    };
    await assert.rejects(server.secretAttachments.attach(server.principal, { id: sandbox.id }, { variable: 'X', environment: 'prod', name: 'KEY', when: 'stand-in' }), { code: 'no_capacity' });
    assert.deepEqual(await server.secretAttachments.list(sandbox), []);
    server.host.onSetInspection = async () => undefined;
  });
});

describe('the log of secrets', () => {
  const event = (sandboxId: SandboxId, bindingId: string, changes: Partial<InspectionEvent> = {}): InspectionEvent => ({
    sandboxId, at: Date.now(), method: 'POST', host: 'api.example.com', port: 443, path: '/v1/x', status: 200, upstreamStatus: 200, durationMs: 12.4, bytesSent: 1, bytesReceived: 1, verdict: 'allowed', errorCode: null, reason: '', guardrails: [],
    secrets: [{ bindingId, outcome: 'injected', code: null, removedFromResponse: 0 }], ...changes,
  });

  it('has a row for each use, newest first, by page and status, and says when a secret was used last', async () => {
    await using server = await Server.start();
    const secret = await server.secrets.create(server.principal, key());
    const sandbox = await server.create(wants('KEY'));
    const [binding] = server.host.inspections.get(sandbox.id)!.secrets;
    await server.host.inspected(
      event(sandbox.id, binding!.id),
      event(sandbox.id, binding!.id, { status: 403, upstreamStatus: null, verdict: 'blocked', errorCode: 'credential_host_mismatch', host: 'evil.example', secrets: [{ bindingId: binding!.id, outcome: 'refused', code: 'credential_host_mismatch', removedFromResponse: 0 }] }),
      event(sandbox.id, 'nobody'),
      event(sandbox.id, binding!.id, { secrets: [] }),
    );
    const rows = await server.secrets.uses(secret, { limit: 10 });
    assert.deepEqual(rows.map(({ host, status, upstreamStatus, errorCode, latencyMs }) => [host, status, upstreamStatus, errorCode, latencyMs]), [
      ['evil.example', 403, null, 'credential_host_mismatch', 12],
      ['api.example.com', 200, 200, null, 12],
    ]);
    assert.equal((await server.secrets.uses(secret, { limit: 10, before: rows[0]!.seq })).length, 1);
    assert.deepEqual((await server.secrets.uses(secret, { limit: 10, status: [400, 999] })).map(({ status }) => status), [403]);
    assert.ok((await server.secrets.get(server.principal, secret.id)).lastUsedAt! > 0);
    assert.deepEqual((await server.secrets.usage(secret)).map(({ variable, state }) => [variable, state]), [['KEY_VAR', 'running']]);
    await server.sandboxes.kill(server.principal, { id: sandbox.id });
    assert.deepEqual(await server.secrets.usage(secret), []);
    server.clock.offset += 8 * 86_400_000;
    await server.restart();
    assert.deepEqual(await server.secrets.uses(secret, { limit: 10 }), []);
  });
});

describe('the network log', () => {
  it('has connections and requests with secrets in one list, and pages of it neither skip nor repeat', async () => {
    await using server = await Server.start();
    await server.secrets.create(server.principal, key());
    const sandbox = await server.create(wants('KEY'));
    const [binding] = server.host.inspections.get(sandbox.id)!.secrets;
    const connection = (at: number): ConnectionEvent => ({ sandboxId: sandbox.id, at, host: `c${at}`, address: null, port: 443, protocol: 'tcp', verdict: 'allowed', matchRule: 'default', rule: null, reason: '', bytesSent: 0, bytesReceived: 0, durationMs: 1, count: 1 });
    const request = (at: number): InspectionEvent => ({
      sandboxId: sandbox.id, at, method: 'GET', host: `r${at}`, port: 443, path: '/', status: 200, upstreamStatus: 200, durationMs: 1, bytesSent: 0, bytesReceived: 0, verdict: 'allowed', errorCode: null, reason: '', guardrails: [],
      secrets: [{ bindingId: binding!.id, outcome: 'injected', code: null, removedFromResponse: 0 }],
    });
    await server.host.connected(...[10, 20, 20, 40, 50].map(connection));
    await server.host.inspected(...[15, 20, 20, 60].map(request));
    const hostOf = (each: LogEntry): string | null => (each.kind === 'connection' ? each.connection.host : each.use.host);
    const expected = ['r60', 'c50', 'c40', 'c20', 'c20', 'r20', 'r20', 'r15', 'c10'];
    for (const limit of [1, 2, 3, 5, 9, 20]) {
      const seen: (string | null)[] = [];
      for (let before: LogPosition | null | undefined = undefined; before !== null; ) {
        const page: { items: readonly LogEntry[]; next: LogPosition | null } = await server.networks.log(server.principal, { id: sandbox.id }, { limit, ...(before === undefined ? {} : { before }) });
        seen.push(...page.items.map(hostOf));
        before = page.next;
      }
      assert.deepEqual(seen, expected, `pages of ${limit}`);
    }
    assert.deepEqual((await server.networks.log(server.principal, { id: sandbox.id }, { limit: 9, before: { at: 20 } })).items.map(hostOf), ['r15', 'c10']);
    assert.deepEqual((await server.networks.log(server.principal, { id: sandbox.id }, { limit: 9, since: 50 })).items.map(hostOf), ['r60', 'c50']);
  });
});

describe('limits of secrets', () => {
  it('are named', async () => {
    await using server = await Server.start({ maxSecrets: 2 });
    const { secrets, principal } = server;
    await secrets.create(principal, key());
    await assert.rejects(secrets.create(principal, key()), { code: 'conflict', message: /^there is a secret "KEY" already/ });
    await secrets.addEnvironment(principal, 'staging');
    await assert.rejects(secrets.addEnvironment(principal, 'staging'), { code: 'conflict' });
    await secrets.create(principal, key({ environment: 'staging' }));
    await assert.rejects(secrets.create(principal, key({ name: 'THIRD' })), { code: 'concurrency_limit', message: 'there are 2 secrets, and the limit is 2; delete some' });
    await assert.rejects(secrets.create(principal, key({ environment: 'none' })), { code: 'not_found' });
    for (const [changes, field] of [[{ name: '' }, 'name'], [{ name: 'a/b' }, 'name'], [{ name: '../x' }, 'name'], [{ name: 'x'.repeat(129) }, 'name'], [{ value: 'a\r\nb' }, 'value'], [{ rules: [] }, 'rules'], [{ rotationIntervalDays: 0 }, 'rotation_interval_days'], [{ environment: 'a/b' }, 'environment']] as const) {
      await assert.rejects(secrets.create(principal, key(changes as Partial<NewSecret>)), (error: Error) => code(error) === 'invalid_argument' && error.message.startsWith(field), field);
    }
  });
});

async function otherTeam(server: Server): Promise<{ teamId: TeamId; keyId: string }> {
  const raw = new Database(join(server.directory, 'paddock.db'));
  const id = crypto.randomUUID();
  raw.prepare('insert into teams (id, name, created_at) values (?, ?, ?)').run(id, 'other', Date.now());
  raw.close();
  return { teamId: id as TeamId, keyId: 'other' };
}
