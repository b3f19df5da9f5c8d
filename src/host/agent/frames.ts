import { PaddockError } from '../../core/errors.ts';
import type { OutputEvent, ProcessExit, StartedProcess } from '../../core/host.ts';

const headerBytes = 13; // type, entry number, length
const payloadLimit = 65_536;

const frame = { stdout: 1, stderr: 2, terminal: 3, exit: 4, gap: 5, keepAlive: 6, started: 7 } as const;

/** Bytes from a guest that do not follow the protocol: the guest is broken or hostile. */
export class AgentProtocolError extends PaddockError {
  constructor(what: string) {
    super('unprocessable', `the sandbox's agent broke its protocol: ${what}`);
    this.name = 'AgentProtocolError';
  }
}

/** Decodes a stream of frames (docs/agent-protocol.md). Holds at most one frame; keep-alives are swallowed. */
export async function* decodeFrames(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<OutputEvent> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of chunks) {
    const incoming = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    let buffer = rest.length === 0 ? incoming : Buffer.concat([rest, incoming]);
    while (buffer.length >= headerBytes) {
      const length = buffer.readUInt32BE(9);
      if (length > payloadLimit) throw new AgentProtocolError(`a frame of ${length} bytes`);
      if (buffer.length < headerBytes + length) break;
      const event = decodeFrame(buffer.readUInt8(0), buffer.readBigUInt64BE(1), buffer.subarray(headerBytes, headerBytes + length));
      buffer = buffer.subarray(headerBytes + length);
      if (event !== null) yield event;
      if (event?.type === 'exit') return;
    }
    rest = buffer;
  }
  if (rest.length > 0) throw new AgentProtocolError('a stream that ends inside a frame');
}

function decodeFrame(type: number, number: bigint, payload: Buffer): OutputEvent | null {
  const entry = Number(number);
  if (!Number.isSafeInteger(entry)) throw new AgentProtocolError('an entry number out of range');
  switch (type) {
    case frame.stdout:
      return { type: 'stdout', entry, data: payload };
    case frame.stderr:
      return { type: 'stderr', entry, data: payload };
    case frame.terminal:
      return { type: 'terminal', entry, data: payload };
    case frame.exit:
      return { type: 'exit', entry, exit: parseExit(parseJson(payload)) };
    case frame.gap:
      return { type: 'gap', entry, lostBytes: numberField(parseJson(payload), 'lost_bytes') };
    case frame.keepAlive:
      return null;
    case frame.started:
      return { type: 'started', process: parseStarted(parseJson(payload)) };
    default:
      return null; // of a newer version: not ours to judge
  }
}

export type Json = Readonly<Record<string, unknown>>;

export function parseJson(payload: Buffer | string): Json {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString());
  } catch {
    throw new AgentProtocolError('text that is not JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new AgentProtocolError('JSON that is not an object');
  return value as Json;
}

export function parseStarted(json: Json): StartedProcess {
  return { id: processId(stringField(json, 'id')), pid: numberField(json, 'pid'), startedAt: numberField(json, 'started_at_ms') };
}

export function parseExit(json: Json): ProcessExit {
  const reason = stringField(json, 'reason');
  const signal = json['signal'];
  return {
    exitCode: numberField(json, 'exit_code'),
    signal: typeof signal === 'string' ? signal.slice(0, 32) : null,
    reason: reason === 'out_of_memory' || reason === 'signaled' ? reason : 'exited',
  };
}

/** Ids go into paths of later requests, so they may hold nothing but letters and digits. */
export function processId(text: string): string {
  if (!/^[A-Za-z0-9]{1,32}$/.test(text)) throw new AgentProtocolError('a process id that is none');
  return text;
}

export function stringField(json: Json, name: string): string {
  const value = json[name];
  if (typeof value !== 'string') throw new AgentProtocolError(`no text in ${name}`);
  return value;
}

export function numberField(json: Json, name: string): number {
  const value = json[name];
  if (typeof value !== 'number' || !Number.isFinite(value)) throw new AgentProtocolError(`no number in ${name}`);
  return value;
}
