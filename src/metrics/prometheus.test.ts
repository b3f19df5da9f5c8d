import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metrics } from './prometheus.ts';

/** The samples of one figure as `labels value`. */
async function samples(metrics: Metrics, name: string): Promise<string[]> {
  return (await metrics.text()).split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
}

test('work, its failures and its stages are counted by what may be a label', async () => {
  const metrics = new Metrics('1.2.3');
  metrics.stage('create', 'slot', 0.004);
  metrics.done('create', 'declaw', null, 0.02);
  metrics.done('create', 'superserve', 'no_capacity', 0.5);
  metrics.ended('timeout');
  metrics.connections('blocked', 'domain', 3);
  assert.deepEqual(await samples(metrics, 'paddock_operations_total'), ['paddock_operations_total{operation="create",wire="declaw",outcome="ok"} 1', 'paddock_operations_total{operation="create",wire="superserve",outcome="no_capacity"} 1']);
  assert.ok((await samples(metrics, 'paddock_operation_stage_seconds_bucket')).includes('paddock_operation_stage_seconds_bucket{le="0.005",operation="create",stage="slot"} 1'));
  assert.deepEqual(await samples(metrics, 'paddock_operation_seconds_count'), ['paddock_operation_seconds_count{operation="create"} 1']);
  assert.deepEqual(await samples(metrics, 'paddock_sandbox_ends_total'), ['paddock_sandbox_ends_total{reason="timeout"} 1']);
  assert.deepEqual(await samples(metrics, 'paddock_egress_connections_total'), ['paddock_egress_connections_total{verdict="blocked",match_rule="domain"} 3']);
  assert.match(await metrics.text(), new RegExp(`paddock_build_info\\{version="1.2.3",node="${process.versions.node}"\\} 1`));
});

test('what others know is asked for when it is read', async () => {
  const metrics = new Metrics('1');
  assert.ok((await samples(metrics, 'paddock_sandboxes')).every((line) => line.endsWith(' 0')));
  let running = 1;
  metrics.ask({ sandboxes: async () => ({ running }), occupancy: () => ({ waitingGuests: 2, keptGuests: 3, keptBytes: 4, readySlots: 5 }) });
  assert.ok((await samples(metrics, 'paddock_sandboxes')).includes('paddock_sandboxes{state="running"} 1'));
  running = 0;
  assert.ok((await samples(metrics, 'paddock_sandboxes')).includes('paddock_sandboxes{state="running"} 0'));
  assert.deepEqual(await samples(metrics, 'paddock_kept_guests_bytes'), ['paddock_kept_guests_bytes 4']);
});

test('two servers in one process count apart', async () => {
  const [one, other] = [new Metrics('1'), new Metrics('1')];
  one.ended('killed');
  assert.deepEqual(await samples(other, 'paddock_sandbox_ends_total'), []);
});

test('a flood of label values ends in one series', async () => {
  const metrics = new Metrics('1');
  for (let i = 0; i < 1000; i++) {
    metrics.connections('allowed', `rule-${i}`, 1);
    metrics.requests.failed('declaw', `code_${i}`);
    metrics.requests.ended({ wire: 'declaw', method: `M${i}`, route: `/${i}`, status: 200, seconds: 0 });
  }
  assert.equal((await samples(metrics, 'paddock_egress_connections_total')).length, 65);
  assert.equal((await samples(metrics, 'paddock_failures_total')).length, 65);
  const requests = await samples(metrics, 'paddock_http_requests_total');
  assert.equal(requests.length, 501);
  assert.ok(requests.every((line) => line.includes('method="other"')));
});
