import { once } from 'node:events';
import type { FastifyReply } from 'fastify';

/**
 * Milliseconds of silence after which a comment is sent. Clients give up after 300 s without a byte (undici's default), and so do
 * proxies on the way, most of them earlier.
 */
const keepAliveMs = 15_000;

/** One server-sent event: LF only, one `data:` line, exactly one space after each colon, as the narrowest parsers need it. */
export function frameEvent(name: string, data: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(data).replaceAll(unicodeLineBreaks, escapeUnit)}\n\n`;
}

/** JSON leaves these three as they are, and Python's `splitlines` ends a line at each. */
const unicodeLineBreaks = /[\u0085\u2028\u2029]/g;

function escapeUnit(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** Text that every parser skips. */
export function frameComment(text: string): string {
  return `: ${text.replaceAll(/[\r\n]/g, ' ')}\n\n`;
}

/**
 * Answers with these frames as `text/event-stream` and ends right after the last one. Waits for a slow reader, so memory stays
 * bounded; sends a comment when nothing else was sent for a while.
 *
 * @param frames must end by itself when the client has left (it has the caller's signal); it must not throw.
 */
export async function sendEventStream(reply: FastifyReply, frames: AsyncIterable<string>): Promise<void> {
  const { raw } = reply;
  reply.hijack();
  raw.writeHead(200, {
    ...(reply.getHeaders() as Record<string, string>),
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache',
    'x-accel-buffering': 'no', // nginx would otherwise collect the events
  });
  raw.flushHeaders();
  const keepAlive = setInterval(() => {
    if (!raw.writableNeedDrain) raw.write(': keep-alive\n\n');
  }, keepAliveMs);
  const closed = new AbortController();
  raw.once('close', () => closed.abort());
  try {
    for await (const frame of frames) {
      if (closed.signal.aborted) break;
      keepAlive.refresh();
      if (!raw.write(frame)) await once(raw, 'drain', { signal: closed.signal });
    }
  } catch (error) {
    if (!closed.signal.aborted) reply.log.error({ reqId: reply.request.id, err: error }, 'an event stream broke off');
  } finally {
    clearInterval(keepAlive);
    raw.end();
  }
}
