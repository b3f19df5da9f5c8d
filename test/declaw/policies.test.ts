import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ALL_TRAFFIC,
  createAuditConfig,
  createCodeSecurityConfig,
  createContentGateConfig,
  createEnvSecurityConfig,
  createInjectionDefenseConfig,
  createInvisibleTextConfig,
  createNetworkPolicy,
  createPIIConfig,
  createSecurityPolicy,
  createToxicityConfig,
  createTransformationRule,
  fullInjectionDefensePolicy,
  InvalidArgumentError,
  Sandbox,
  securityPolicyToJSON,
  type SandboxOpts,
  type SecurityPolicy,
} from '@declaw/sdk';
import { filesWith } from '../harness/machine.ts';
import { serverOfThisFile } from '../harness/server.ts';

const server = serverOfThisFile();

/** Policies that are in force, or ask for nothing. */
const enforced: [string, SecurityPolicy][] = [
  ['the default policy', createSecurityPolicy()],
  ['everything present and switched off', createSecurityPolicy({ pii: createPIIConfig(), injectionDefense: createInjectionDefenseConfig(), toxicity: createToxicityConfig(), codeSecurity: createCodeSecurityConfig(), invisibleText: createInvisibleTextConfig(), contentGate: createContentGateConfig(), transformations: [] })],
  ['injection defence without domains, which scans nothing', createSecurityPolicy({ injectionDefense: createInjectionDefenseConfig({ enabled: true, action: 'block', injectionMode: 'balanced', judge: { enabled: true } }) })],
  ['injection defence as a switch', createSecurityPolicy({ injectionDefense: true })],
  ['a content gate without domains, which intercepts nothing', createSecurityPolicy({ contentGate: createContentGateConfig({ enabled: true }) })],
  ['no audit', createSecurityPolicy({ audit: createAuditConfig({ enabled: false }) })],
  ['other patterns of what to mask', createSecurityPolicy({ envSecurity: createEnvSecurityConfig({ maskPatterns: ['PRIVATE_*'] }) })],
  ['personal data', createSecurityPolicy({ pii: createPIIConfig({ enabled: true }) })],
  ['personal data of no kinds, which are all of them', createSecurityPolicy({ pii: createPIIConfig({ enabled: true, action: 'log_only', types: [] }) })],
  ['every other guardrail', createSecurityPolicy({ injectionDefense: createInjectionDefenseConfig({ enabled: true, domains: ['api.example.com'] }), transformations: [createTransformationRule({ match: 'a', replace: 'b' })], toxicity: createToxicityConfig({ enabled: true }), codeSecurity: createCodeSecurityConfig({ enabled: true }), invisibleText: createInvisibleTextConfig({ enabled: true }) })],
  ['a network that denies everything', createSecurityPolicy({ network: createNetworkPolicy({ denyOut: [ALL_TRAFFIC] }) })],
];

/** Policies that want something this version cannot enforce, and the field that must be named. */
const unenforceable: [string, SecurityPolicy][] = [
  ['security.injection_defense', createSecurityPolicy({ injectionDefense: createInjectionDefenseConfig({ enabled: true, domains: ['api.example.com'], judge: { enabled: true } }) })],
  ['security.content_gate', createSecurityPolicy({ contentGate: createContentGateConfig({ enabled: true, domains: ['*.example.com'] }) })],
  ['security.custom_policy', fullInjectionDefensePolicy()],
];

test('policies that can be enforced are accepted and echoed as they were sent, as text and as object', async () => {
  for (const [name, policy] of enforced) {
    const object = securityPolicyToJSON(policy);
    for (const security of [object, { policy_json: JSON.stringify(object) }]) {
      const { status, json } = await server.call('POST', '/sandboxes', { json: { security } });
      assert.equal(status, 201, `${name}: ${JSON.stringify(json)}`);
      assert.deepEqual(json.security, security, name);
      assert.deepEqual((await server.call('GET', `/sandboxes/${json.sandbox_id}`)).json.security, security, name);
      await Sandbox.kill(json.sandbox_id);
    }
  }
});

test('the SDK creates with each of them', async () => {
  for (const [name, security] of enforced) {
    const sandbox = await Sandbox.create({ security });
    assert.equal((await sandbox.commands.run('echo runs')).stdout, 'runs\n', name);
    await sandbox.kill();
  }
});

test('what cannot be enforced yet is refused by name, as text and as object, and leaves nothing', async () => {
  const total = async (): Promise<number> => (await server.call('GET', '/sandboxes?state=all')).json.total;
  const before = await total();
  for (const [field, policy] of unenforceable) {
    const object = securityPolicyToJSON(policy);
    for (const security of [object, { policy_json: JSON.stringify(object) }]) {
      const { status, json } = await server.call('POST', '/sandboxes', { json: { security } });
      assert.equal(status, 400, field);
      assert.ok(json.message.includes(field), `${field}: ${json.message}`);
    }
    await assert.rejects(Sandbox.create({ security: policy }), (error) => error instanceof InvalidArgumentError && error.message.includes(field), field);
  }
  assert.equal(await total(), before);
});

test('network rules of every form are accepted and echoed, in both places', async () => {
  const accepted: SandboxOpts[] = [
    { allowInternetAccess: false },
    { network: { allowOut: [], denyOut: ['0.0.0.0/0'], allowPublicTraffic: true } },
    { network: { allowOut: ['*'], denyOut: ['ALL_TRAFFIC'], allowPublicTraffic: true } },
    { network: { allowOut: ['pypi.org', '*.pythonhosted.org', '198.51.100.0/24'], denyOut: ['10.0.0.0/8', 'example.com', '*.example.org', '1.2.3.4', '~^ads\\.'], allowPublicTraffic: true } },
    { network: { allowOut: [], denyOut: [], allowPublicTraffic: true, maskRequestHost: 'app.example:${PORT}' } },
    { security: createSecurityPolicy({ network: createNetworkPolicy({ allowOut: ['pypi.org'] }) }) },
  ];
  for (const options of accepted) {
    const sandbox = await Sandbox.create(options);
    const { json } = await server.call('GET', `/sandboxes/${sandbox.sandboxId}`);
    if (options.network !== undefined) assert.deepEqual([json.network.allow_out, json.network.deny_out], [options.network.allowOut, options.network.denyOut]);
    await sandbox.kill();
  }
});

test('rules that cannot be read are refused by name, with what to write instead', async () => {
  const refused: [unknown, RegExp][] = [
    [{ network: { allow_out: ['example.com', 'https://example.com/'] } }, /^network\.allow_out\[1\] "https:\/\/example\.com\/" is a URL; give only the host$/],
    [{ network: { allow_out: ['example.com:443'] } }, /^network\.allow_out\[0\] .* has a port/],
    [{ network: { allow_out: ['::/0'] } }, /^network\.allow_out\[0\] .* IPv6 is not supported/],
    [{ network: { allow_out: ['~(?=x)'] } }, /^network\.allow_out\[0\] .* look-around/],
    [{ network: { mask_request_host: 'not a host' } }, /^network\.mask_request_host /],
    [{ network: { deny_out: ['999.1.1.1'] } }, /^network\.deny_out\[0\]/],
    [{ network: { deny_out: ['10.0.0.0/33'] } }, /^network\.deny_out\[0\]/],
    [{ network: { deny_out: [''] } }, /^network\.deny_out\[0\]/],
    [{ security: { network: { allow_out: ['127.1'] } } }, /^security\.network\.allow_out\[0\] .* write 127\.0\.0\.1/],
    [{ vault_refs: { OPENAI_API_KEY: 'vault://t/prod/openai' } }, /vault_refs/],
    [{ snapshot_id: 'snap-00000000-0000-4000-8000-000000000000', vault_refs: { OPENAI_API_KEY: 'vault://t/prod/openai' } }, /vault_refs/],
    [{ volumes: [{ volume_id: 'vol-00000000-0000-4000-8000-000000000000', mount_path: '/etc/data', mode: 'mount' }] }, /^volumes\[0\]\.mount_path/],
  ];
  for (const [json, named] of refused) {
    const answer = await server.call('POST', '/sandboxes', { json });
    assert.equal(answer.status, 400, JSON.stringify(json));
    assert.match(answer.json.message, named);
  }
});

test('exact lists and empty requests are echoed', async () => {
  const network = { deny_out: ['10.0.0.0/8', 'example.com'], allow_public_traffic: false };
  const { json } = await server.call('POST', '/sandboxes', { json: { network, volumes: [], vault_refs: {}, security: {} } });
  assert.deepEqual(json.network, network);
  assert.deepEqual(json.security, {});
  await Sandbox.kill(json.sandbox_id);
});

test('with a policy, values of variables that look like secrets are masked in answers, not inside', async () => {
  const envs = { OPENAI_API_KEY: 'sk-secret-value', MODE: 'fast' };
  const plain = await server.call('POST', '/sandboxes', { json: { envs } });
  assert.deepEqual(plain.json.envs, envs);
  const masked = await server.call('POST', '/sandboxes', { json: { envs, security: securityPolicyToJSON(createSecurityPolicy()) } });
  assert.equal(masked.json.envs.MODE, 'fast');
  assert.ok(!JSON.stringify(masked.json).includes('sk-secret-value'));
  const listed = await server.call('GET', '/sandboxes');
  assert.equal(listed.json.sandboxes.filter((each: object) => JSON.stringify(each).includes('sk-secret-value')).length, 1);
  const inside = await (await Sandbox.connect(masked.json.sandbox_id)).commands.run('echo $OPENAI_API_KEY');
  assert.equal(inside.stdout, 'sk-secret-value\n');
  await Sandbox.killMany([plain.json.sandbox_id, masked.json.sandbox_id]);
});

test('values of envs are not readable in the data directory', async () => {
  const secret = 'sealed-at-rest-4f9a';
  const sandbox = await Sandbox.create({ envs: { TOKEN: secret } });
  assert.deepEqual(filesWith(server.dataDir, secret), []);
  await sandbox.kill();
});
