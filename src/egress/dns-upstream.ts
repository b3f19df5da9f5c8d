import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { readFileSync, statSync } from 'node:fs';
import { connect, isIP, isIPv6 } from 'node:net';
import dns, { type DecodedPacket, type RecordType } from 'dns-packet';

/** A name server: an address of either family, and a port. */
export interface NameServer {
  readonly address: string;
  readonly port: number;
}

/** Where an answer comes from, so that the resolver can be tested without a network. */
export interface Upstream {
  /** @throws Error when no name server answered. Answers other than success and "no such name" count as none. */
  ask(name: string, type: RecordType, signal: AbortSignal): Promise<DecodedPacket>;
}

/** The host's own name servers. Each question is sent from a port of its own with an id of its own, in letters of random case, and all of it must come back (RFC 5452). */
export class NameServers implements Upstream {
  readonly #configured: readonly NameServer[];
  #system: { servers: readonly NameServer[]; readAt: number; changedAt: number } = { servers: [], readAt: Number.NEGATIVE_INFINITY, changedAt: Number.NaN };

  /** @throws Error that names the entry that is no name server. */
  constructor(configured: readonly string[]) {
    this.#configured = configured.map(parseNameServer);
  }

  async ask(name: string, type: RecordType, signal: AbortSignal): Promise<DecodedPacket> {
    const servers = this.#configured.length > 0 ? this.#configured : this.#fromSystem();
    if (servers.length === 0) throw new Error('no name server is configured on the host');
    let last: unknown = new Error('no name server answered');
    for (const timeoutMs of [1500, 3000]) {
      for (const server of servers) {
        try {
          return await exchange(server, name, type, AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]));
        } catch (reason) {
          if (signal.aborted) throw reason;
          last = reason;
        }
      }
    }
    throw last;
  }

  #fromSystem(): readonly NameServer[] {
    const now = performance.now();
    if (now - this.#system.readAt > 5000) {
      const changedAt = modified(resolvConf);
      if (changedAt !== this.#system.changedAt) this.#system = { servers: readResolvConf(), readAt: now, changedAt };
      else this.#system.readAt = now;
    }
    return this.#system.servers;
  }
}

/** `address`, `address:port` or `[address]:port`. @throws Error */
export function parseNameServer(text: string): NameServer {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::(\d{1,5}))?$/.exec(text) ?? /^([0-9a-fA-F:.]+)()()$/.exec(text);
  const address = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3] ?? '') || 53;
  if (isIP(address) === 0 || port > 65_535) throw new Error(`"${text}" is not a name server: give an address, or address:port.`);
  return { address, port };
}

const resolvConf = '/etc/resolv.conf';

function modified(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function readResolvConf(): NameServer[] {
  try {
    return readFileSync(resolvConf, 'utf8')
      .split('\n')
      .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? '')
      .filter((address) => isIP(address) !== 0)
      .slice(0, 3)
      .map((address) => ({ address, port: 53 }));
  } catch {
    return []; // a host without the file has no name servers of its own
  }
}

async function exchange(server: NameServer, name: string, type: RecordType, signal: AbortSignal): Promise<DecodedPacket> {
  const id = randomInt(65_536);
  const asked = randomCase(name);
  const query = dns.encode({
    type: 'query',
    id,
    flags: dns.RECURSION_DESIRED,
    questions: [{ type, name: asked, class: 'IN' }],
    additionals: [{ type: 'OPT', name: '.', udpPayloadSize: 1232, extendedRcode: 0, ednsVersion: 0, flags: 0, flag_do: false, options: [] }],
  });
  const answers = (packet: DecodedPacket, exactly: boolean): boolean => {
    const [question, another] = packet.questions ?? [];
    if (!packet.flag_qr || packet.id !== id || question === undefined || another !== undefined || question.type !== type) return false;
    return exactly ? question.name === asked : question.name.toLowerCase() === name;
  };
  const overUdp = await askOverUdp(server, query, (packet) => answers(packet, false), signal);
  // Cut short, or letters that are not ours, which a forger would get wrong and some servers do: ask where nobody can forge.
  const packet = overUdp.flag_tc || !answers(overUdp, true) ? await askOverTcp(server, query, (packet) => answers(packet, false), signal) : overUdp;
  const code = (packet.flags ?? 0) & 15;
  if (code !== 0 && code !== 3) throw new Error(`the name server ${server.address} answered with error ${code}`);
  return packet;
}

function askOverUdp(server: NameServer, query: Buffer, fits: (packet: DecodedPacket) => boolean, signal: AbortSignal): Promise<DecodedPacket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(server.address) ? 'udp6' : 'udp4');
    const end = (work: () => void): void => {
      signal.removeEventListener('abort', onAbort);
      socket.close();
      work();
    };
    const onAbort = (): void => end(() => reject(signal.reason instanceof Error ? signal.reason : new Error('aborted')));
    socket.on('error', (reason) => end(() => reject(reason)));
    socket.on('message', (bytes) => {
      const packet = decode(bytes);
      if (packet !== null && fits(packet)) end(() => resolve(packet));
    });
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    // Connected: the kernel drops what comes from anybody else.
    socket.connect(server.port, server.address, () => socket.send(query));
    return undefined;
  });
}

function askOverTcp(server: NameServer, query: Buffer, fits: (packet: DecodedPacket) => boolean, signal: AbortSignal): Promise<DecodedPacket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: server.address, port: server.port, signal });
    let bytes = Buffer.alloc(0);
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`the name server ${server.address} closed the connection`)));
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      if (bytes.length < 2 || bytes.length < 2 + bytes.readUInt16BE(0)) return;
      const packet = decode(bytes.subarray(2, 2 + bytes.readUInt16BE(0)));
      if (packet !== null && fits(packet)) resolve(packet);
      socket.destroy();
    });
    const length = Buffer.alloc(2);
    length.writeUInt16BE(query.length);
    socket.write(Buffer.concat([length, query]));
  });
}

/** Null for what is no DNS message. */
export function decode(bytes: Buffer): DecodedPacket | null {
  try {
    return dns.decode(bytes);
  } catch {
    return null;
  }
}

function randomCase(name: string): string {
  return name.replace(/[a-z]/g, (letter) => (randomInt(2) === 0 ? letter : letter.toUpperCase()));
}
