import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';

/** How long one direction may stay silent after the other has ended. */
const longestHalfClosedMs = 600_000;

/** Enough for the longest run of the kernel's; memory is touched only as far as data came. */
const bufferSize = 65_536;
/** Making buffers for each connection would keep the garbage collector busy, and connections waiting for it. */
const spareBuffers: Buffer[] = [];
const mostSpareBuffers = 128;

/**
 * What a socket reads, without a buffer of its own for each piece: half of the time of passing bytes on would go into making them. For
 * `net.connect({ onread })`; `pump` sets `take`, which returns false when the buffer is not free again yet.
 */
export class Intake {
  readonly buffer = spareBuffers.pop() ?? Buffer.allocUnsafeSlow(bufferSize);
  take: (chunk: Buffer) => boolean = () => false;
  /** Whether a write still needs what is in the buffer. */
  busy = false;

  /** After its socket is closed: the buffer may serve another. */
  release(): void {
    if (!this.busy && spareBuffers.length < mostSpareBuffers) spareBuffers.push(this.buffer);
  }

  readonly callback = (size: number, buffer: Uint8Array): boolean => this.take(Buffer.from(buffer.buffer, buffer.byteOffset, size));
}

/**
 * Passes on what comes from one socket to the other, as fast as the other takes it, and its end when it ends. A reset is passed on as a reset.
 *
 * @returns Stops passing on; the sockets are then as they were, with `from` paused.
 */
export function pump(from: Socket, to: Socket, intake: Intake | null = null): () => void {
  const onData = (chunk: Buffer): void => {
    if (!to.write(chunk)) from.pause();
  };
  const onIntake = (chunk: Buffer): boolean => {
    let atOnce = true;
    to.write(chunk, (reason) => {
      if (atOnce) return;
      // After a failure nobody knows whether the kernel still looks at it.
      if (reason == null) intake!.busy = false;
      from.resume();
    });
    // The kernel took all of it within the call, or the buffer is in use until it has.
    atOnce = to.writableLength === 0;
    intake!.busy = !atOnce;
    return atOnce;
  };
  const onDrain = (): unknown => from.resume();
  const onEnd = (): void => {
    to.end();
    for (const socket of [from, to]) socket.setTimeout(longestHalfClosedMs, () => socket.destroy());
  };
  const onError = (): unknown => reset(to);
  // Destroyed by this process, when there was no error and no end.
  const onClose = (): void => {
    if (!from.readableEnded) reset(to);
  };
  if (intake === null) from.on('data', onData);
  else {
    intake.take = onIntake;
    from.once('close', () => intake.release());
  }
  from.on('end', onEnd).on('error', onError).on('close', onClose);
  if (intake === null) to.on('drain', onDrain);
  if (from.destroyed) reset(to);
  else from.resume();
  return () => {
    from.pause();
    from.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose);
    to.off('drain', onDrain);
  };
}

/** Ends the connection in a way that is no orderly end. */
function reset(socket: Socket): void {
  // TLS has no reset of its own: an end without its last word is the same to its reader.
  if (socket instanceof TLSSocket) socket.destroy();
  else socket.resetAndDestroy();
}
