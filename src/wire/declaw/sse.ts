import { StringDecoder } from 'node:string_decoder';
import { PaddockError } from '../../core/errors.ts';
import type { OutputEvent } from '../../core/host.ts';
import { frameComment, frameEvent } from '../event-stream.ts';

/**
 * Bytes of output in one event. A multiple of three, so that base64 pieces join; even when every byte needs an escape of six
 * characters, the line stays below the 1 MiB that Go's scanner takes.
 */
const chunkBytes = 48 * 1024;

const stopped = 'the server is being stopped';

/**
 * The frames of `POST …/commands/stream` (contract, section 3.1). Always ends with an `exit` or an `error`: without one the TypeScript
 * client takes the command for a success. Text is never cut inside a character.
 */
export async function* commandFrames(events: AsyncIterable<OutputEvent>, draining: AbortSignal): AsyncGenerator<string> {
  const decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };
  // Both keys: the clients read `type`, the documentation says `stream`.
  const text = (type: 'stdout' | 'stderr', data: string): string => (data === '' ? '' : frameEvent(type, { type, stream: type, data }));
  const rest = (): string => text('stdout', decoders.stdout.end()) + text('stderr', decoders.stderr.end());
  try {
    for await (const event of events) {
      if (event.type === 'stdout' || event.type === 'stderr') {
        for (const piece of pieces(event.data)) {
          const frame = text(event.type, decoders[event.type].write(piece));
          if (frame !== '') yield frame;
        }
      } else if (event.type === 'gap') {
        yield frameEvent('gap', { type: 'gap', lost_bytes: event.lostBytes });
      } else if (event.type === 'exit') {
        yield rest() + frameEvent('exit', { exit_code: event.exit.exitCode });
        return;
      }
    }
    yield rest() + frameEvent('error', { error: draining.aborted ? stopped : 'the connection to the command was lost' });
  } catch (error) {
    yield rest() + frameEvent('error', { error: draining.aborted ? stopped : PaddockError.from(error).message });
  }
}

/**
 * The frames of `GET …/stdio/{cmd_id}/stream` (section 3.2). Output that nobody fetched in time shows as a comment. Ends without `exit`
 * when the connection to the process is lost: the client can come back with its last entry.
 */
export async function* stdioFrames(events: AsyncIterable<OutputEvent>): AsyncGenerator<string> {
  try {
    for await (const event of events) {
      if (event.type === 'stdout' || event.type === 'stderr') {
        // One entry of the agent has at most 64 KiB and stays one event: its number is where a reader comes back.
        yield frameEvent(event.type, { entry_id: event.entry, data: event.data.toString('base64') });
      } else if (event.type === 'gap') {
        yield frameComment(`${event.lostBytes} bytes were dropped because nobody read them in time`);
      } else if (event.type === 'exit') {
        yield frameEvent('exit', { exit_code: event.exit.exitCode });
        return;
      }
    }
  } catch (error) {
    yield frameComment(`stream ended: ${PaddockError.from(error).message}`);
  }
}

/** The frames of `GET …/pty/{pid}/stream` (section 3.3). */
export async function* ptyFrames(events: AsyncIterable<OutputEvent>): AsyncGenerator<string> {
  try {
    for await (const event of events) {
      if (event.type === 'terminal' || event.type === 'stdout' || event.type === 'stderr') {
        for (const piece of pieces(event.data)) yield frameEvent('data', { data: piece.toString('base64') });
      } else if (event.type === 'gap') {
        yield frameComment(`${event.lostBytes} bytes were dropped because nobody read them in time`);
      } else if (event.type === 'exit') {
        yield frameEvent('exit', { exit_code: event.exit.exitCode });
        return;
      }
    }
  } catch (error) {
    yield frameComment(`stream ended: ${PaddockError.from(error).message}`);
  }
}

function* pieces(data: Buffer): Generator<Buffer> {
  if (data.length <= chunkBytes) {
    yield data;
    return;
  }
  for (let from = 0; from < data.length; from += chunkBytes) yield data.subarray(from, from + chunkBytes);
}
