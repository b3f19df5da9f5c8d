import { existsSync } from 'node:fs';
import type { Instance } from '../instance.ts';
import { runTool } from '../tool.ts';
import { linkAddresses } from './addresses.ts';
import { ipBatch, listNetns, runInNetns } from './netns.ts';

/**
 * The namespace in which every slot ends. It has no uplink: what a guest sends to any address but the host's end of
 * the link is delivered locally, where nothing listens, so the kernel answers TCP with a reset at once. That holds by
 * routing alone, with every nftables rule flushed; the rules below are the second wall.
 *
 *     guest eth0 ── s<n> [ gateway namespace ] host0 ── pd<id> host
 *
 * The host may open connections to guests (their agents); a guest may open none to anywhere. Idempotent, and without
 * an interruption for guests that are alive.
 */
export async function ensureGateway(instance: Instance): Promise<void> {
  const { gatewayNetns: netns, hostLink, subnet } = instance;
  const { near: hostAddress, far: gatewayAddress } = linkAddresses(subnet, 0);
  if (!listNetns().has(netns)) await runTool('ip', ['netns', 'add', netns]);
  // IPv6 is off for every link that exists here or ever will.
  await runInNetns(netns, 'sh', ['-c', gatewaySysctls]);
  await runTool('nft', ['-f', '-'], { input: hostRules(instance) });
  await runInNetns(netns, 'nft', ['-f', '-'], { input: gatewayRules });
  if (!existsSync(`/sys/class/net/${hostLink}`)) {
    await runTool('ip', ['link', 'add', hostLink, 'type', 'veth', 'peer', 'name', 'host0', 'netns', netns]);
  }
  await ipBatch(netns, [
    'link set lo up',
    `addr replace ${gatewayAddress}/30 dev host0`,
    'link set host0 up',
    // The dead end: to whoever comes in over a slot's link, every address is local. It lies in the table "local", because
    // the kernel sends resets only from addresses that it finds there.
    'route replace local default dev lo table local',
    // For the host the gateway has one address of its own; without this it would not answer ARP for it.
    `route replace local ${gatewayAddress} dev host0 table main`,
    `route replace ${hostAddress}/32 dev host0 table 100`,
  ]);
  await ensureRoutingRules(netns);
  await ipBatch(null, [
    `link set ${hostLink} addrgenmode none`,
    `addr replace ${hostAddress}/30 dev ${hostLink}`,
    `link set ${hostLink} up`,
    `route replace ${subnet.text} via ${gatewayAddress} dev ${hostLink} src ${hostAddress}`,
  ]);
}

export async function removeGateway(instance: Instance): Promise<void> {
  if (listNetns().has(instance.gatewayNetns)) await runTool('ip', ['netns', 'delete', instance.gatewayNetns]);
  if (existsSync(`/sys/class/net/${instance.hostLink}`)) await runTool('ip', ['link', 'delete', instance.hostLink]).catch(ignoreVanished);
  await runTool('nft', ['-f', '-'], { input: `table inet ${instance.hostTable}\ndelete table inet ${instance.hostTable}\n` });
}

/** Lets a slot's link carry its one source address; everything else that comes in over it is dropped. */
export function admitSlot(instance: Instance, link: string, address: string): Promise<string> {
  return runInNetns(instance.gatewayNetns, 'nft', ['add', 'element', 'inet', 'paddock', 'slots', `{ "${link}" . ${address} }`]);
}

export function expelSlot(instance: Instance, link: string, address: string): Promise<string> {
  return runInNetns(instance.gatewayNetns, 'nft', ['delete', 'element', 'inet', 'paddock', 'slots', `{ "${link}" . ${address} }`]);
}

const gatewaySysctls = [
  'echo 1 > /proc/sys/net/ipv4/ip_forward',
  'echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter',
  // Strict for links made from now on: a source that does not lie behind the link is dropped before any rule.
  'echo 1 > /proc/sys/net/ipv4/conf/default/rp_filter',
  'echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects',
  'echo 0 > /proc/sys/net/ipv4/conf/default/send_redirects',
  'echo 0 > /proc/sys/net/ipv4/conf/default/accept_redirects',
  // A segment that the tracker did not expect still belongs to its connection.
  '[ ! -e /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal ] || echo 1 > /proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal',
  // Refused datagrams are answered each: with the kernel's limit a resolver's second question would wait for its time-out.
  'echo 0 > /proc/sys/net/ipv4/icmp_ratelimit',
  'for f in /proc/sys/net/ipv6/conf/all/disable_ipv6 /proc/sys/net/ipv6/conf/default/disable_ipv6; do [ ! -e $f ] || echo 1 > $f; done',
].join(' && ');

/**
 * The mark 0x50 is on what the egress proxy's own table in this namespace accepted for its sockets: nothing has it while there is no proxy.
 * `table … delete table … table …` replaces in one transaction; the slots' set outlives it in a table of its own making.
 */
const gatewayRules = `
table inet paddock {
  set slots { type ifname . ipv4_addr; }
}
table inet paddock {
  chain guard { type filter hook prerouting priority raw; policy drop; }
  chain input { type filter hook input priority filter; policy drop; }
  chain forward { type filter hook forward priority filter; policy drop; }
}
flush chain inet paddock guard
flush chain inet paddock input
flush chain inet paddock forward
table inet paddock {
  chain guard {
    iifname { "lo", "host0" } accept
    meta nfproto ipv4 iifname . ip saddr @slots accept
  }
  chain input {
    iifname "lo" accept
    iifname "host0" icmp type echo-request accept
    # What the egress proxy's own table has judged and handed to one of its sockets.
    meta mark 0x50 accept
    meta nfproto ipv4 meta l4proto tcp reject with tcp reset
    meta nfproto ipv4 meta l4proto udp reject
  }
  chain forward {
    iifname "host0" oifname != "host0" accept
    oifname "host0" ct state established,related accept
    # Late and repeated segments of the host's own connections: a reset would end a connection that lives.
    oifname "host0" ct state invalid drop
    meta nfproto ipv4 meta l4proto tcp reject with tcp reset
  }
}
`;

function hostRules(instance: Instance): string {
  const { hostTable, hostLink } = instance;
  // Own hooks at an early priority: what ufw, firewalld or Docker allow later cannot undo a drop here.
  return `
table inet ${hostTable}
delete table inet ${hostTable}
table inet ${hostTable} {
  chain input {
    type filter hook input priority -150; policy accept;
    iifname "${hostLink}" ct state established,related accept
    iifname "${hostLink}" drop
  }
  chain forward {
    type filter hook forward priority -150; policy accept;
    iifname "${hostLink}" drop
    oifname "${hostLink}" drop
  }
}
`;
}

/** In place of the kernel's own: what comes from a slot's link sees the way back to the host, and then the dead end. */
const routingRules = [
  { priority: 100, text: 'iif lo lookup main' },
  { priority: 101, text: 'iif host0 lookup main' },
  { priority: 200, text: 'lookup 100' },
  { priority: 300, text: 'lookup local' },
];
const kernelRules = [0, 32766, 32767];

async function ensureRoutingRules(netns: string): Promise<void> {
  const present = new Set(
    (JSON.parse(await runTool('ip', ['-n', netns, '-json', 'rule', 'show'])) as { priority: number }[]).map((rule) => rule.priority),
  );
  const lines = routingRules.filter((rule) => !present.has(rule.priority)).map((rule) => `rule add priority ${rule.priority} ${rule.text}`);
  for (const own of kernelRules) if (present.has(own)) lines.push(`rule delete priority ${own}`);
  if (lines.length > 0) await ipBatch(netns, lines);
}

/** A link goes by itself when the namespace of its other end does. */
function ignoreVanished(reason: unknown): void {
  if (!(reason instanceof Error) || !/Cannot find device|does not exist/.test(reason.message)) throw reason;
}
