import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openPolicy } from '../../core/network/rules.ts';
import type { SandboxId, ShortId, TeamId } from '../../core/ids.ts';
import type { Sandbox } from '../../core/sandbox.ts';
import { Presenter, statesOf, stateWord, timestamp } from './present.ts';

const presenter = new Presenter({ agent: ({ id }) => `envd-${id}`, traffic: ({ id }) => `traffic-${id}` }, 'sandbox.localhost');

const running: Sandbox = {
  id: '00000000-0000-4000-8000-000000000001' as SandboxId,
  shortId: 'abcd1234' as ShortId,
  teamId: 'team' as TeamId,
  wire: 'declaw',
  name: '',
  template: { id: 'tpl-base', name: 'base', digest: 'd' },
  limits: { vcpus: 2, memoryMb: 512, diskMb: 1024, pids: 100 },
  state: 'running',
  defaultUser: 'user',
  metadata: { a: 'b' },
  envs: { A_KEY: 'secret', B: 'c' },
  lifecycle: { onTimeout: 'kill', autoResume: false, maxLifetimeSeconds: null, autoDeleteSeconds: null },
  declared: {},
  policy: { allowPublicTraffic: true, audit: true, network: openPolicy, maskRequestHost: null, previews: 'private' },
  timeoutSeconds: 300,
  createdAt: Date.UTC(2026, 0, 15, 10, 30, 0, 123),
  startedAt: Date.UTC(2026, 0, 15, 10, 30, 1, 999),
  endAt: Date.UTC(2026, 0, 15, 10, 35, 1, 999),
  periodStartedAt: Date.UTC(2026, 0, 15, 10, 30, 1, 999),
  pausedAt: null,
  pauseCause: null,
  autoDeleteAt: null,
  snapshotId: null,
  sourceSnapshotId: null,
  authorityId: null,
  generation: 1,
  guest: { runtime: 'gvisor', build: 'b', container: 'c', slot: 1, address: '10.88.0.5', agentPort: 49983, agentProtocol: 1, pid: 1, pidStart: '1', bootId: 'x' },
  end: null,
};

test('a running sandbox has every field of the contract', () => {
  assert.deepEqual(presenter.sandbox(running), {
    sandbox_id: 'sbx-abcd1234',
    template_id: 'tpl-base',
    name: 'base',
    state: 'running',
    timeout: 300,
    metadata: { a: 'b' },
    envs: { A_KEY: 'secret', B: 'c' },
    network: null,
    security: null,
    lifecycle: null,
    volumes: [],
    secure: true,
    envd_access_token: 'envd-00000000-0000-4000-8000-000000000001',
    traffic_access_token: 'traffic-00000000-0000-4000-8000-000000000001',
    sandbox_domain: 'sandbox.localhost',
    guest_ip: '10.88.0.5',
    envd_port: 49983,
    started_at: '2026-01-15T10:30:01Z',
    end_at: '2026-01-15T10:35:01Z',
  });
});

test('GET adds what the sandbox may use', () => {
  assert.deepEqual((presenter.sandboxWithResources(running) as { resources: object }).resources, { vcpus: 2, memory_mb: 512, disk_mb: 1024 });
});

test('what was declared is echoed as it came, and hides values that look like secrets once there is a policy', () => {
  const security = { policy_json: '{"env_security":{"mask_patterns":["b*"]}}' };
  const shown = presenter.sandbox({ ...running, declared: { security, network: { deny_out: ['*'], x: 1 }, secure: false } }) as Record<string, unknown>;
  assert.deepEqual([shown['security'], shown['network'], shown['secure']], [security, { deny_out: ['*'], x: 1 }, false]);
  assert.deepEqual(shown['envs'], { A_KEY: 'secret', B: '***' });
  assert.deepEqual((presenter.sandbox({ ...running, declared: { security: {} } }) as Record<string, unknown>)['envs'], { A_KEY: '***', B: 'c' });
});

test('a sandbox without a deadline has a null end, never an empty text', () => {
  const shown = presenter.sandbox({ ...running, timeoutSeconds: 0, endAt: null, startedAt: null }) as Record<string, unknown>;
  assert.equal(shown['end_at'], null);
  assert.equal(shown['started_at'], '2026-01-15T10:30:00Z');
});

test('an ended sandbox says when and why', () => {
  const shown = presenter.sandbox({ ...running, state: 'killed', guest: null, end: { at: 0, reason: 'out_of_memory', detail: 'x' } }) as Record<string, unknown>;
  assert.deepEqual([shown['state'], shown['guest_ip'], shown['end_at'], shown['end_reason'], shown['end_detail']], ['killed', null, '1970-01-01T00:00:00Z', 'out_of_memory', 'x']);
});

test('seven states become four words, and back', () => {
  assert.deepEqual(
    (['creating', 'running', 'pausing', 'paused', 'resuming', 'killing', 'killed'] as const).map(stateWord),
    ['creating', 'running', 'paused', 'paused', 'paused', 'killed', 'killed'],
  );
  assert.deepEqual(statesOf('killed'), ['killing', 'killed']);
});

test('times are RFC 3339 in whole seconds of UTC', () => {
  assert.equal(timestamp(999), '1970-01-01T00:00:00Z');
});
