import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, realpathSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Subnet, parseSubnet } from './network/addresses.ts';
import { HostSetupError } from './setup-error.ts';
import { runTool } from './tool.ts';

/**
 * One server on one data directory. Everything it makes on the machine carries its id, so that two servers, or a
 * server and the tests, live side by side.
 */
export interface Instance {
  /** Eight hex digits, derived from the data directory's real path. */
  readonly id: string;
  readonly dataDir: string;
  readonly subnet: Subnet;
  /** Network namespace in which every slot ends. */
  readonly gatewayNetns: string;
  /** The host's end of its only link to the gateway. */
  readonly hostLink: string;
  /** Name of the nftables table in the host's own namespace. */
  readonly hostTable: string;
  /** Parent of all guests' cgroups, relative to each hierarchy's root and outside the server's own. */
  readonly cgroup: string;
  /** Slots' directories: disks, bundles, logs. */
  readonly slotsDir: string;
  /** runsc's state. */
  readonly runscRoot: string;
  slotNetns(slot: number): string;
}

export async function openInstance(dataDir: string, wanted: string | undefined): Promise<Instance> {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const real = realpathSync(dataDir);
  const id = createHash('sha256').update(real).digest('hex').slice(0, 8);
  const hostDir = join(real, 'host');
  const slotsDir = join(hostDir, 'slots');
  const runscRoot = join(hostDir, 'runsc-state');
  for (const dir of [hostDir, slotsDir, runscRoot]) mkdirSync(dir, { recursive: true, mode: 0o700 });
  const hostLink = `pd${id}`;
  const subnet = await settleSubnet(join(hostDir, 'subnet'), id, hostLink, wanted);
  return Object.freeze({
    id,
    dataDir: real,
    subnet,
    gatewayNetns: `paddock-${id}-gw`,
    hostLink,
    hostTable: `paddock_${id}`,
    cgroup: `paddock-${id}`,
    slotsDir,
    runscRoot,
    slotNetns: (slot: number) => `paddock-${id}-${slot}`,
  });
}

/** The range stays the same over restarts: living guests have addresses of it. */
async function settleSubnet(file: string, id: string, hostLink: string, wanted: string | undefined): Promise<Subnet> {
  const kept = readIfPresent(file);
  if (wanted !== undefined) {
    const subnet = parseSubnet(wanted);
    if (subnet === null) throw new HostSetupError(`PADDOCK_SUBNET is "${wanted}": give an IPv4 network from /16 to /24, such as 10.90.0.0/18.`);
    if (kept === null) keep(file, subnet);
    else if (kept !== subnet.text) throw new HostSetupError(`PADDOCK_SUBNET is ${subnet.text}, but this data directory uses ${kept}: stop everything first with "paddock stop --all".`);
    return subnet;
  }
  const settled = kept === null ? null : parseSubnet(kept);
  if (settled !== null) return settled;
  const taken = await rangesInUse(hostLink);
  // Start from a place of this instance's own, so that two instances that start at once do not meet.
  const first = Number.parseInt(id.slice(0, 4), 16);
  for (let step = 0; step < 512; step++) {
    const index = (first + step * 37) % 1024; // 10.0.0.0/8 holds 1,024 networks of size /18
    const candidate = parseSubnet(`10.${index >> 2}.${(index & 3) * 64}.0/18`);
    if (candidate !== null && !taken.some((range) => range.overlaps(candidate))) {
      keep(file, candidate);
      return candidate;
    }
  }
  throw new HostSetupError('No free IPv4 range was found in 10.0.0.0/8 for the sandboxes: set PADDOCK_SUBNET to a network that this machine does not use.');
}

async function rangesInUse(except: string): Promise<Subnet[]> {
  const listed = JSON.parse(await runTool('ip', ['-json', '-4', 'route', 'show', 'table', 'all'])) as { dst?: string; dev?: string }[];
  return listed
    .filter((route) => route.dev !== except && route.dst !== undefined && route.dst !== 'default')
    .map((route) => Subnet.parse(route.dst ?? ''))
    .filter((range) => range !== null);
}

function readIfPresent(file: string): string | null {
  try {
    return readFileSync(file, 'utf8').trim() || null;
  } catch (reason) {
    if ((reason as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw reason;
  }
}

function keep(file: string, subnet: Subnet): void {
  writeFileSync(`${file}.new`, `${subnet.text}\n`);
  renameSync(`${file}.new`, file);
}
