import { accessSync, constants, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { arch, release } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PaddockError } from '../core/errors.ts';
import type { GuestIdentity, Host } from '../core/host.ts';
import { newSandboxId, newSnapshotId, type TeamId } from '../core/ids.ts';
import type { NetworkPolicy } from '../core/network/rules.ts';
import type { Template } from '../core/template.ts';
import { childCgroups, detectCgroupVersion } from './cgroup.ts';
import { type LocalHost, openHost } from './host.ts';
import { silentLog } from './log.ts';
import { loadTemplates } from './templates.ts';

/** One prerequisite: whether it holds, what was found, and what to do if it does not hold. */
export interface Finding {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
  readonly advice?: string;
}

/** Nothing may be reached: what the trial then reaches would be a hole. */
const closed: NetworkPolicy = { allow: [], deny: [{ kind: 'all', text: '0.0.0.0/0' }] };

const teamId = 'doctor' as TeamId;

const tools = ['ip', 'nft', 'mkfs.ext4', 'mount', 'umount', 'unshare', 'mkfifo', 'setpriv'];

/**
 * Looks at everything a sandbox needs and then boots, uses and destroys a real one, in an instance of its own beside a
 * running server. Findings come as they are made; what depends on a failed one is left out.
 */
export async function* diagnose(options: { dataDir: string; artefactsDir: string }): AsyncGenerator<Finding> {
  const root = process.getuid?.() === 0;
  yield check('root', root, root ? 'running as root' : 'not running as root', 'run this as root: network namespaces, mounts and cgroups need it');
  const supported = process.platform === 'linux' && ['x64', 'arm64'].includes(arch());
  yield check('system', supported, `${process.platform} ${arch()}, kernel ${release()}`, 'use a Linux machine with an x86-64 or arm64 processor');
  const missing = tools.filter((tool) => !isInstalled(tool));
  yield check('programs', missing.length === 0, missing.length === 0 ? tools.join(', ') : `missing: ${missing.join(', ')}`, 'run "npm start", which installs what is missing');
  if (!root || !supported || missing.length > 0) return;

  yield cgroups();
  const free = freeMb(options.dataDir);
  yield check('disk', free > 4096, `${free} MiB free for ${options.dataDir}`, 'free some space: each sandbox may write up to its template\'s disk size');
  let host: LocalHost;
  // Below the data directory, so that it lies on the same file system and goes with it if this process is killed.
  const dataDir = mkdtempSync(join(options.dataDir, 'doctor-'));
  try {
    const names = loadTemplates(options.artefactsDir).list().map((template) => template.name);
    yield check('templates', names.includes('base'), names.length === 0 ? 'none' : names.join(', '), 'run "npm start", which builds them');
    host = await openHost({ dataDir, artefactsDir: options.artefactsDir, warmGuests: 0, keptMemoryMb: 0, egress: { dnsUpstreams: [], upstreamProxy: null, extraCaFile: null }, log: silentLog });
  } catch (reason) {
    yield check('artefacts', false, (reason as Error).message, 'run "npm start", which sets everything up');
    rmSync(dataDir, { recursive: true, force: true });
    return;
  }
  try {
    yield* tryOut(host);
  } finally {
    await host.teardown();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

async function* tryOut(host: LocalHost): AsyncGenerator<Finding> {
  const template = host.templates.find('base');
  if (template === undefined) return;
  const id = newSandboxId();
  const identity = { sandboxId: id, hostname: 'doctor', agentToken: `doctor-${id}`, defaultUser: 'user', sudo: true, env: {} };
  const started = performance.now();
  try {
    await host.recover(new Map());
    yield check('network', true, 'gateway namespace, link and rules are in place');
    await host.provision({ template, limits: template.limits, identity, teamId, network: closed }, AbortSignal.timeout(60_000));
    yield check('sandbox starts', true, `gVisor guest booted and claimed in ${Math.round(performance.now() - started)} ms`);
  } catch (reason) {
    yield check('sandbox starts', false, (reason as Error).message, 'the message is runsc\'s or the kernel\'s own; docs/operations.md lists the known causes');
    return;
  }
  const said = await runIn(host, id, 'echo "works as $(id -un) on $(uname -s) $(uname -r)"');
  yield check('sandbox runs commands', said.startsWith('works as user'), said, 'see the detail');
  const isolated = await runIn(host, id, '! timeout 5 bash -c "</dev/tcp/192.0.2.1/80" 2>/dev/null && echo closed');
  yield check('sandbox is closed in', isolated === 'closed', isolated === 'closed' ? 'an outbound connection is refused' : 'an outbound connection was not refused', 'do not run untrusted code on this machine; report this');
  yield await pauseAndResume(host, template, identity);
  yield await buildStep(host, template, identity);
  await host.destroy(id);
  for (let i = 0; i < 50 && childCgroups(host.cgroup).size > 0; i++) await sleep(20);
  yield check('sandbox ends', childCgroups(host.cgroup).size === 0, 'destroyed, nothing left');
}

/** To disk and back, as a sandbox that was paused long ago. */
async function pauseAndResume(host: LocalHost, { limits }: Template, identity: GuestIdentity): Promise<Finding> {
  const { sandboxId, agentToken } = identity;
  const started = performance.now();
  try {
    await runIn(host, sandboxId, 'echo remembered > /dev/shm/doctor');
    const checkpoint = await host.checkpoint(sandboxId, { checkpointId: newSnapshotId(), hold: true }, AbortSignal.timeout(60_000));
    await host.retire(sandboxId, checkpoint.id, new PaddockError('conflict', 'the sandbox was paused'));
    const saved = performance.now();
    await host.restore({ checkpoint, savedToken: agentToken, sameSandbox: true, limits, identity, teamId, network: closed }, AbortSignal.timeout(60_000));
    const said = await runIn(host, sandboxId, 'cat /dev/shm/doctor');
    const times = `saved in ${Math.round(saved - started)} ms, back in ${Math.round(performance.now() - saved)} ms`;
    return check('sandbox pauses and resumes', said === 'remembered', said === 'remembered' ? times : `its memory is lost: ${said}`, 'sandboxes work, but do not rely on pauses and snapshots on this machine; report this');
  } catch (reason) {
    return check('sandbox pauses and resumes', false, (reason as Error).message, 'sandboxes work, but pauses, snapshots and forks do not: the message is runsc\'s or the kernel\'s own');
  }
}

/** One step of a build, and a layer of what it wrote. */
async function buildStep(host: LocalHost, { digest, limits }: Template, like: GuestIdentity): Promise<Finding> {
  const identity = { ...like, sandboxId: newSandboxId() };
  const started = performance.now();
  try {
    await host.provisionStep({ root: { base: digest, layers: [] }, limits, identity, teamId, network: closed }, AbortSignal.timeout(60_000));
    await runIn(host, identity.sandboxId, 'echo built > /home/user/doctor && rm /etc/profile');
    const { bytes } = await host.sealStep(identity.sandboxId, AbortSignal.timeout(60_000));
    return check('templates can be built', bytes > 0, `a step and its layer took ${Math.round(performance.now() - started)} ms`);
  } catch (reason) {
    return check('templates can be built', false, (reason as Error).message, 'sandboxes work, but templates of your own cannot be built: the kernel must have overlayfs ("modprobe overlay")');
  } finally {
    await host.destroy(identity.sandboxId);
  }
}

async function runIn(host: Host, id: ReturnType<typeof newSandboxId>, cmd: string): Promise<string> {
  let said = '';
  for await (const event of host.guest(id).run({ cmd, kind: 'command', stdin: false }, AbortSignal.timeout(20_000))) {
    if (event.type === 'stdout' || event.type === 'stderr') said += event.data.toString();
  }
  return said.trim();
}

function cgroups(): Finding {
  const version = detectCgroupVersion();
  const needed = ['cpu', 'memory', 'pids'];
  const present =
    version === 2
      ? readFileSync('/sys/fs/cgroup/cgroup.controllers', 'utf8').trim().split(' ')
      : [...needed, 'freezer'].filter((controller) => exists(`/sys/fs/cgroup/${controller}/cgroup.procs`));
  const absent = [...needed, ...(version === 1 ? ['freezer'] : [])].filter((controller) => !present.includes(controller));
  return check('cgroups', absent.length === 0, absent.length === 0 ? `version ${version}` : `version ${version} without ${absent.join(', ')}`, 'enable these controllers (kernel parameters cgroup_enable=memory, systemd.unified_cgroup_hierarchy=1)');
}

function check(name: string, ok: boolean, detail: string, advice = ''): Finding {
  return ok ? { name, ok, detail } : { name, ok, detail, advice };
}

function isInstalled(tool: string): boolean {
  return (process.env['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin').split(':').some((dir) => exists(join(dir, tool), constants.X_OK));
}

function exists(file: string, mode = constants.F_OK): boolean {
  try {
    accessSync(file, mode);
    return true;
  } catch {
    return false;
  }
}

function freeMb(dir: string): number {
  const { bavail, bsize } = statfsSync(dir);
  return Math.floor((bavail * bsize) / 1024 / 1024);
}
