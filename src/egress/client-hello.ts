import { parseIpv4 } from '../core/network/addresses.ts';
import { canonicalName } from '../core/network/names.ts';

/** What the first bytes of a TLS connection say. `more`: they are the beginning of a ClientHello. `serverName` is canonical; null when the client names no host. `protocols` are what it offers to speak (ALPN); null when it does not say. */
export type HelloReading =
  | { readonly kind: 'more' }
  | { readonly kind: 'hello'; readonly serverName: string | null; readonly protocols: readonly string[] | null }
  | { readonly kind: 'broken'; readonly why: string };

const more: HelloReading = Object.freeze({ kind: 'more' });
const [handshake, clientHello] = [22, 1];
const [serverNameExtension, protocolsExtension] = [0, 16];
const hostName = 0;
/** RFC 8446 section 5.1, with the allowance of older versions. */
const longestRecord = 16_384 + 256;

/**
 * Reads the server name out of a ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3), however it is cut into records and packets.
 * Strict where a lenient reader could see another name than the server does: two names, two extensions, lengths that do not add up.
 */
export function readClientHello(bytes: Buffer): HelloReading {
  const message = joinRecords(bytes);
  if (!Buffer.isBuffer(message)) return message;
  try {
    const { names, protocols } = extensionsOf(new Reader(message));
    return { kind: 'hello', serverName: serverNameOf(names), protocols: protocolsOf(protocols) };
  } catch (reason) {
    return broken(reason instanceof Malformed ? reason.message : String(reason));
  }
}

/** The handshake message, without its header, from as many records as it takes. */
function joinRecords(bytes: Buffer): Buffer | HelloReading {
  const parts: Buffer[] = [];
  let gathered = 0;
  for (let at = 0; ; ) {
    if (at < bytes.length && bytes[at] !== handshake) return broken('the handshake is interrupted by another kind of record');
    if (at + 1 < bytes.length && bytes[at + 1] !== 3) return broken('the record has no version of TLS');
    if (at + 5 > bytes.length) return more;
    const length = bytes.readUInt16BE(at + 3);
    if (length === 0 || length > longestRecord) return broken('a record has an impossible length');
    const part = bytes.subarray(at + 5, at + 5 + length);
    parts.push(part);
    gathered += part.length;
    const message = parts.length === 1 ? part : gathered >= 4 ? Buffer.concat(parts) : null;
    if (message !== null && message.length >= 1 && message[0] !== clientHello) return broken('the first message is not a ClientHello');
    if (message !== null && message.length >= 4 && message.length >= 4 + message.readUIntBE(1, 3)) return message.subarray(4, 4 + message.readUIntBE(1, 3));
    if (part.length < length) return more;
    at += 5 + length;
  }
}

function extensionsOf(hello: Reader): { names: Reader | null; protocols: Reader | null } {
  hello.take(2 + 32);
  if (hello.vector(1).left > 32) throw new Malformed('the session id is too long');
  hello.vector(2);
  hello.vector(1);
  if (hello.left === 0) return { names: null, protocols: null }; // before TLS 1.0 had extensions
  const extensions = hello.vector(2);
  if (hello.left > 0) throw new Malformed('something follows the extensions');
  let names: Reader | null = null;
  let protocols: Reader | null = null;
  while (extensions.left > 0) {
    const type = extensions.number(2);
    const content = extensions.vector(2);
    if (type === serverNameExtension) {
      if (names !== null) throw new Malformed('there are two lists of server names');
      names = content;
    } else if (type === protocolsExtension) {
      if (protocols !== null) throw new Malformed('there are two lists of protocols');
      protocols = content;
    }
  }
  return { names, protocols };
}

/** RFC 7301 section 3.1. */
function protocolsOf(found: Reader | null): readonly string[] | null {
  if (found === null) return null;
  const list = found.vector(2);
  const protocols: string[] = [];
  while (list.left > 0) protocols.push(list.vector(1).rest().toString('latin1'));
  return protocols;
}

function serverNameOf(found: Reader | null): string | null {
  if (found === null || found.left === 0) return null;
  const list = found.vector(2);
  const type = list.number(1);
  const bytes = list.vector(2).rest();
  if (type !== hostName || list.left > 0 || found.left > 0) throw new Malformed('the list of server names has not exactly one host name');
  if (bytes.some((byte) => byte >= 0x80)) throw new Malformed('the server name has characters outside ASCII');
  const text = bytes.toString('latin1');
  const name = canonicalName(text);
  // An address is no server name (RFC 6066), but some clients send one. It names nothing that the address does not.
  if (name === null && parseIpv4(text) === null) throw new Malformed('the server name is not a host name');
  return name;
}

class Malformed extends Error {}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  take(length: number): Buffer {
    if (length > this.left) throw new Malformed('a length leads past the end');
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  number(size: number): number {
    return this.take(size).readUIntBE(0, size);
  }

  /** What stands behind a length of `size` bytes. */
  vector(size: number): Reader {
    return new Reader(this.take(this.number(size)));
  }

  rest(): Buffer {
    return this.take(this.left);
  }
}

function broken(why: string): HelloReading {
  return { kind: 'broken', why: `The TLS ClientHello cannot be read: ${why}.` };
}
