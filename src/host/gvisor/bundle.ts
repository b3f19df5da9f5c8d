import { availableParallelism } from 'node:os';
import type { Limits } from '../../core/template.ts';
import type { Artefact } from '../artefacts.ts';
import type { GuestRoot, Origin } from '../runtime.ts';
import { volumesInside } from '../volumes/points.ts';

export interface BundleInput {
  readonly template: Pick<GuestRoot, 'digest' | 'rootfs' | 'env' | 'direct'>;
  readonly limits: Limits;
  readonly netns: string;
  /** Relative to each hierarchy's root, with a leading slash. */
  readonly cgroup: string;
  readonly agent: Artefact;
  /** Directory in which volumes can be mounted at any time; null for a guest that was saved without. */
  readonly volumes: string | null;
}

/** Marks of ours in the configuration: it says what the guest was made from for as long as the guest lives. */
const templateMark = 'dev.paddock.template';
const agentMark = 'dev.paddock.agent';
const volumesMark = 'dev.paddock.volumes';

/** Where the agent appears inside every guest. */
export const agentPath = '/.paddock/agent';

/**
 * Root's powers inside the guest, over the guest's own kernel. Left out: NET_RAW and NET_ADMIN (a guest does not choose its
 * addresses or craft packets), module loading, clocks, and what gVisor has no use for.
 */
const capabilities = [
  'CAP_AUDIT_WRITE', 'CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_DAC_READ_SEARCH', 'CAP_FOWNER', 'CAP_FSETID', 'CAP_IPC_LOCK', 'CAP_KILL',
  'CAP_LEASE', 'CAP_MKNOD', 'CAP_NET_BIND_SERVICE', 'CAP_SETFCAP', 'CAP_SETGID', 'CAP_SETPCAP', 'CAP_SETUID', 'CAP_SYS_ADMIN',
  'CAP_SYS_CHROOT', 'CAP_SYS_NICE', 'CAP_SYS_PTRACE', 'CAP_SYS_RESOURCE',
];

/** The OCI configuration of a guest: https://github.com/opencontainers/runtime-spec/blob/main/config.md */
export function bundleConfig({ template, limits, netns, cgroup, agent, volumes }: BundleInput): object {
  return {
    ociVersion: '1.0.2',
    hostname: 'paddock',
    process: {
      args: [agentPath],
      cwd: '/',
      user: { uid: 0, gid: 0 },
      // Nothing secret: the agent gets identity and environment in its claim, which is never written to disk.
      env: [
        'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        // What is written there stays: nothing of this guest's own may be among it.
        ...(template.direct === true ? ['PADDOCK_ROOT=direct'] : []),
        ...Object.entries(template.env).map(([name, value]) => `PADDOCK_TEMPLATE_ENV_${name}=${value}`),
      ],
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities, inheritable: [], ambient: [] },
      rlimits: [{ type: 'RLIMIT_NOFILE', soft: 65_536, hard: 65_536 }],
      noNewPrivileges: false,
    },
    root: { path: template.rootfs, readonly: false },
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs' },
      { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['mode=1777', `size=${Math.floor(limits.memoryMb / 4)}m`] },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro'] },
      { destination: agentPath, type: 'bind', source: agent.path, options: ['ro', 'rbind'] },
      // A slave: it gets what is mounted there later, and gives nothing back.
      ...(volumes === null ? [] : [{ destination: volumesInside, type: 'bind', source: volumes, options: ['rbind', 'rslave', 'nosuid', 'nodev'] }]),
    ],
    annotations: { ...(template.digest === null ? {} : { [templateMark]: template.digest }), [agentMark]: agent.digest, ...(volumes === null ? {} : { [volumesMark]: 'mountable' }) },
    linux: {
      cgroupsPath: cgroup,
      namespaces: [{ type: 'pid' }, { type: 'ipc' }, { type: 'uts' }, { type: 'mount' }, { type: 'network', path: `/run/netns/${netns}` }],
      resources: {
        // The size the guest sees. The host's own limit is set above it once the guest runs.
        memory: { limit: limits.memoryMb * 1024 * 1024 },
        cpu: { ...cpuQuota(limits.vcpus, availableParallelism()), shares: limits.vcpus * 1024 },
        // Only a backstop: hitting it kills the guest's kernel, so the guest's own limit must come first.
        pids: { limit: limits.pids * 3 + 200 },
      },
    },
  };
}

/** What the guest of this configuration was made from; null when it does not say. */
export function originOf(config: string): Origin | null {
  const { annotations } = JSON.parse(config) as { annotations?: Record<string, string> };
  const template = annotations?.[templateMark];
  const agent = annotations?.[agentMark];
  return template === undefined || agent === undefined ? null : { template, agent, mountable: annotations?.[volumesMark] !== undefined };
}

/**
 * Microseconds of CPU time per period. No guest gets the whole machine, and periods are short: a neighbour's command needs hundreds of
 * turns, and beside a guest that never lets go of any core each would wait for the scheduler's mercy (seconds at p99 with 100 ms
 * periods and nothing kept free, tens of milliseconds like this, measured).
 */
export function cpuQuota(vcpus: number, cores: number): { quota: number; period: number } {
  const period = 10_000;
  return { quota: Math.round(Math.min(vcpus, cores * 0.85) * period), period };
}

/** The host's limit for a guest of this size, in bytes: room for the guest's kernel, and for the agent to act first. */
export function hostMemoryLimit(memoryMb: number): number {
  return (memoryMb + Math.min(memoryMb, 512)) * 1024 * 1024;
}
