import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Sandbox } from '@declaw/sdk';
import { serverOfThisFile } from '../harness/server.ts';
import { eventually } from '../harness/wait.ts';

const server = serverOfThisFile();

/** How a connection from inside ends, and after how many milliseconds. */
const connectTo = (address: string, port: number): string =>
  `import socket,time\nt=time.time()\ns=socket.socket();s.settimeout(5)\ntry:\n  s.connect(("${address}",${port}));r="connected"\nexcept OSError as e: r=type(e).__name__\nprint(r,int((time.time()-t)*1000))`;

async function attempt(sandbox: Sandbox, address: string, port: number): Promise<{ outcome: string; ms: number }> {
  await sandbox.files.write('/tmp/connect.py', connectTo(address, port));
  const [outcome = '', ms] = (await sandbox.commands.run('python3 /tmp/connect.py')).stdout.trim().split(' ');
  return { outcome, ms: Number(ms) };
}

test('what a sandbox tried and was refused is in its log with the rule, also after its end', async () => {
  const sandbox = await Sandbox.create({ template: 'python', network: { allowOut: ['198.51.100.0/24'], denyOut: ['203.0.114.0/24', '0.0.0.0/0'], allowPublicTraffic: true } });
  for (const [address, port] of [['169.254.169.254', 80], ['203.0.114.9', 443], ['9.9.9.9', 853]] as const) {
    const { outcome, ms } = await attempt(sandbox, address, port);
    assert.equal(outcome, 'ConnectionRefusedError', address);
    assert.ok(ms < 1000, `${address} took ${ms} ms`);
  }
  const log = async (): Promise<any[]> => (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/network`)).json.data;
  await eventually(async () => (await log()).length === 3);
  await sandbox.kill({ wait: true });
  const found = (await log()).map((each) => [each.dst_ip, each.dst_port, each.verdict, each.match_rule, each.rule]);
  assert.deepEqual(found.sort(), [
    ['169.254.169.254', 80, 'blocked', 'internal-ip', undefined],
    ['203.0.114.9', 443, 'blocked', 'cidr', '203.0.114.0/24'],
    ['9.9.9.9', 853, 'blocked', 'cidr', '0.0.0.0/0'],
  ]);
  const { entries } = (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/audit`)).json;
  assert.deepEqual([entries[0].event, entries.filter((each: any) => each.event === 'egress_blocked').length], ['vm_created', 3]);
});

test('rules replaced while a sandbox runs hold at once, and after a restart of the server', async () => {
  const sandbox = await Sandbox.create({ template: 'python', network: { allowOut: [], denyOut: ['0.0.0.0/0'], allowPublicTraffic: true } });
  const explained = async (): Promise<string> => (await server.call('GET', `/sandboxes/${sandbox.sandboxId}/network/explain?target=203.0.114.9:443`)).json.verdict;
  assert.equal((await attempt(sandbox, '203.0.114.9', 443)).outcome, 'ConnectionRefusedError');
  assert.equal(await explained(), 'blocked');
  const begun = Date.now();
  const changed = await server.call('PUT', `/sandboxes/${sandbox.sandboxId}/network`, { json: { allow_out: ['203.0.114.0/24'] } });
  assert.ok(Date.now() - begun < 1000);
  assert.deepEqual([changed.status, changed.json.network.allow_out], [200, ['203.0.114.0/24']]);
  await server.stop();
  await server.start();
  assert.equal(await explained(), 'allowed');
  assert.equal((await attempt(sandbox, '9.9.9.9', 443)).outcome, 'ConnectionRefusedError');
  await sandbox.kill();
});
