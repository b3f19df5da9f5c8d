import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GuardrailFinding } from './guardrails/finding.ts';
import type { SandboxId } from './ids.ts';
import type { InspectionEvent } from './network/inspection.ts';
import { Server } from './testing/server.ts';

const found: GuardrailFinding = { guardrail: 'pii', direction: 'outbound', outcome: 'changed', blocked: false, counts: { email: 2, ssn: 1 }, score: null, reason: null };
const event = (sandboxId: SandboxId, guardrails: readonly GuardrailFinding[]): InspectionEvent => ({
  sandboxId, at: Date.now(), method: 'POST', host: 'api.example.com', port: 443, path: '/v1/x', status: 200, upstreamStatus: 200, durationMs: 12, bytesSent: 1, bytesReceived: 1, verdict: 'allowed', errorCode: null, reason: '', secrets: [], guardrails,
});

test('what guardrails found is in the audit by its counts, unless the audit is off', async () => {
  await using server = await Server.start();
  const [loud, quiet] = [await server.create(), await server.create({ policy: { security: { audit: { enabled: false } } } })];
  for (const { id } of [loud, quiet]) {
    await server.host.inspected(event(id, []), event(id, [found, { ...found, outcome: 'not_scanned', counts: {}, reason: 'it is not text' }, { ...found, guardrail: 'toxicity', outcome: 'blocked', blocked: true, counts: { insult: 1 }, score: 0.97 }]));
  }
  const security = async (id: SandboxId) => (await server.networks.audit(server.principal, { id }, 100)).flatMap((each) => (each.kind === 'event' && each.event.category === 'security' ? [each.event] : []));
  const events = await security(loud.id);
  assert.deepEqual(events.map(({ name }) => name), ['guardrail_applied', 'guardrail_not_scanned', 'guardrail_blocked']);
  assert.deepEqual(events[0]!.detail, { guardrail: 'pii', direction: 'outbound', outcome: 'changed', blocked: false, count: 3, kinds: 'email 2, ssn 1', method: 'POST', host: 'api.example.com', port: 443, path: '/v1/x', status: 200 });
  assert.deepEqual([events[1]!.detail['reason'], events[2]!.detail['score']], ['it is not text', 0.97]);
  assert.deepEqual(await security(quiet.id), []);
});

test('a sandbox with guardrails is looked into from the start, and after a restart of the server', async () => {
  await using server = await Server.start();
  const { id } = await server.create({ policy: { security: { pii: { enabled: true }, transformations: [{ match: 'a', replace: 'b', direction: 'in' }] } } });
  const armed = server.host.inspections.get(id)!;
  assert.deepEqual([armed.guardrails?.pii?.action, armed.unscanned, armed.secrets], ['redact', 'refuse', []]);
  assert.ok(armed.authority !== null);
  await server.restart();
  const { policy } = (await server.store.sandboxes.find(null, { id }))!;
  assert.deepEqual(policy.guardrails, armed.guardrails);
  assert.deepEqual(server.host.inspections.get(id), armed);
});
