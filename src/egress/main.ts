import { dirname } from 'node:path';
import { formatAddress, networkOf, parseIpv4 } from '../core/network/addresses.ts';
import type { InspectionEvent } from '../core/network/inspection.ts';
import { ConnectionLog } from './connection-log.ts';
import { ControlServer } from './control.ts';
import { Dialler } from './dial.ts';
import { DnsServer } from './dns-server.ts';
import { NameServers } from './dns-upstream.ts';
import { EventQueue } from './event-queue.ts';
import { Filter } from './filter.ts';
import { holdBodiesIn } from './http/held-body.ts';
import { Http1Server } from './http/http1-front.ts';
import { recordInspection } from './inspector.ts';
import { OwnAddresses } from './own-addresses.ts';
import { TransparentProxy } from './proxy.ts';
import { recordRefusals } from './refusals.ts';
import { Resolver } from './resolver.ts';
import { dnsPort, parseSettings, proxyPort } from './settings.ts';
import { bindDatagram, forbidDumps, listenTransparent, raiseOpenFiles } from './sockets.ts';
import { PolicyTable } from './table.ts';
import { Interception, trustedContext } from './tls/interception.ts';
import { UpstreamProxy } from './upstream-proxy.ts';

/*
 * The egress proxy, a process of its own: `node src/egress/main.ts '<settings as JSON>'`. It serves the guests behind one gateway until
 * it is ended by SIGTERM, whether a server is connected to its control socket or not. It writes one line when it is ready, and one when
 * it cannot start (exit code 1).
 */

try {
  await start();
} catch (reason) {
  process.stderr.write(`paddock egress: ${(reason as Error).message}\n`);
  process.exit(1);
}

async function start(): Promise<void> {
  forbidDumps();
  const settings = parseSettings(process.argv[2] ?? process.env['PADDOCK_EGRESS']);
  holdBodiesIn(dirname(settings.controlSocket));
  const files = raiseOpenFiles(settings.limits.connections * 2 + 2048);
  const limits = { ...settings.limits, connections: Math.min(settings.limits.connections, Math.floor((files - 1024) / 2)) };
  // The ports come first: whoever holds them is the one proxy of this gateway, and its rules are left alone.
  const proxyFd = listenTransparent(settings.netns, proxyPort);
  const dnsTcpFd = listenTransparent(settings.netns, dnsPort);
  const dnsUdpFd = bindDatagram(settings.netns, dnsPort);
  const filter = new Filter(settings.netns, { hostAddress: settings.hostAddress, subnet: parseSubnet(settings.subnet), proxyPort, dnsPort });
  const table = new PolicyTable(filter, limits);
  const log = new ConnectionLog();
  const inspections = new EventQueue<InspectionEvent>();
  const own = new OwnAddresses();
  const resolver = new Resolver(new NameServers(settings.dnsUpstreams));
  const dialler = new Dialler(resolver, own, settings.upstreamProxy === null ? null : new UpstreamProxy(settings.upstreamProxy, settings.extraCaFile));
  const http = new Http1Server();
  const interception = new Interception(http, dialler, trustedContext(settings.extraCaFile), (guest) => (event, stages) => recordInspection(inspections, guest.id, event, stages));
  const proxy = new TransparentProxy(table, { dialler, log, http, interception }, limits);
  const dns = new DnsServer(table, { resolver, isOwn: (address) => own.current().has(address), syntheticFor: (guest, name) => table.syntheticFor(guest, name) }, log);
  const control = new ControlServer(table, { connections: log, inspections }, () => ({ admitted: table.size, connections: proxy.open, eventsWaiting: log.waiting, memoryBytes: process.memoryUsage.rss() }));
  filter.setOwn(own.current());
  await proxy.listen(proxyFd);
  await dns.listen(dnsUdpFd, dnsTcpFd);
  await control.listen(settings.controlSocket);

  const watch = setInterval(() => {
    if (table.size === 0) return;
    try {
      filter.setOwn(own.current());
      recordRefusals(filter.takeRefusals(), table, log);
    } catch (reason) {
      process.stderr.write(`paddock egress: the packet filter cannot be watched: ${(reason as Error).message}\n`);
    }
  }, 1000);

  process.on('SIGHUP', () => {}); // the end of a terminal is not the end of the sandboxes
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      clearInterval(watch);
      control.close();
      proxy.close();
      dns.close();
      process.exit(0);
    });
  }
  process.on('uncaughtException', (reason) => {
    // The state may be anything: without this process nothing passes, and the server starts another.
    process.stderr.write(`paddock egress: ${reason.stack ?? reason.message}\n`);
    process.exit(70);
  });
  process.stdout.write(`paddock egress: ready, pid ${process.pid}, gateway ${settings.netns}, guests in ${settings.subnet}, host ${formatAddress(parseIpv4(settings.hostAddress) ?? 0)}\n`);
}

function parseSubnet(text: string): { base: number; prefix: number } {
  const [host = '', prefixText = ''] = text.split('/');
  const address = parseIpv4(host);
  const prefix = Number(prefixText);
  if (address === null || !(prefix >= 0 && prefix <= 32)) throw new Error(`The egress proxy's "subnet" is "${text}", not an IPv4 network.`);
  return { base: networkOf(address, prefix), prefix };
}
