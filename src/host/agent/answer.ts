import type { Readable } from 'node:stream';
import { AgentProtocolError, type Json, parseJson } from './frames.ts';

/** Bytes of a JSON answer that are read at most. */
const jsonLimit = 8 * 1024 * 1024;

/** The whole of an answer's body as text. Throws AgentProtocolError when it is longer than the limit in bytes: an attack or a bug. */
export async function readAll(body: Readable, limit: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw new AgentProtocolError(`an answer of more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** The JSON object that an answer's body is. Throws AgentProtocolError when it is none. */
export async function readJson(body: Readable, limit = jsonLimit): Promise<Json> {
  return parseJson(await readAll(body, limit));
}
