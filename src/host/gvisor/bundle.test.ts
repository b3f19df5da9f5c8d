import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bundleConfig, cpuQuota, hostMemoryLimit, originOf } from './bundle.ts';

test('a guest gets its processors, but never the whole machine', () => {
  assert.deepEqual(cpuQuota(2, 2), { quota: 17_000, period: 10_000 });
  assert.deepEqual(cpuQuota(2, 16), { quota: 20_000, period: 10_000 });
  assert.deepEqual(cpuQuota(1, 1), { quota: 8_500, period: 10_000 });
  assert.deepEqual(cpuQuota(8, 4), { quota: 34_000, period: 10_000 });
});

test('the host allows a guest its size again, at most 512 MiB more', () => {
  assert.equal(hostMemoryLimit(256), 512 * 1024 * 1024);
  assert.equal(hostMemoryLimit(4096), (4096 + 512) * 1024 * 1024);
});

test('the bundle gives no raw network, no secrets and no writable host path', () => {
  const template = { id: 'tpl-x', name: 'x', digest: 'd', description: '', limits: { vcpus: 1, memoryMb: 512, diskMb: 1024, pids: 100 }, env: { LANG: 'C.UTF-8' }, rootfs: '/rootfs' };
  const input = { template, limits: template.limits, netns: 'ns', cgroup: '/c/g', volumes: null, agent: { path: '/agent', digest: 'a' } };
  const config = bundleConfig(input) as {
    process: { env: string[]; capabilities: Record<string, string[]> };
    mounts: { type: string; options?: string[] }[];
    linux: { namespaces: { type: string; path?: string }[]; resources: { pids: { limit: number } } };
  };
  for (const set of Object.values(config.process.capabilities)) {
    for (const forbidden of ['CAP_NET_RAW', 'CAP_NET_ADMIN', 'CAP_SYS_MODULE', 'CAP_SYS_TIME', 'CAP_BPF']) assert.ok(!set.includes(forbidden), forbidden);
  }
  assert.deepEqual(config.process.env.slice(1), ['PADDOCK_TEMPLATE_ENV_LANG=C.UTF-8']);
  for (const mount of config.mounts.filter((each) => each.type === 'bind')) assert.ok(mount.options?.includes('ro'));
  assert.deepEqual(config.linux.namespaces.map((each) => each.type).sort(), ['ipc', 'mount', 'network', 'pid', 'uts']);
  assert.equal(config.linux.resources.pids.limit, 500);
});

test('a configuration says what its guest was made from', () => {
  const template = { id: 'tpl-x', name: 'x', digest: 'd', description: '', limits: { vcpus: 1, memoryMb: 512, diskMb: 1024, pids: 100 }, env: {}, rootfs: '/rootfs' };
  const config = bundleConfig({ template, limits: template.limits, netns: 'ns', cgroup: '/c/g', volumes: null, agent: { path: '/agent', digest: 'a' } });
  assert.deepEqual(originOf(JSON.stringify(config)), { template: 'd', agent: 'a', mountable: false });
  assert.equal(originOf('{}'), null);
});
