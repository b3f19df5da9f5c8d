import type { Socket } from 'node:net';

/** How long one direction may stay silent after the other has ended. */
const longestHalfClosedMs = 600_000;

/**
 * Passes on what comes from one socket to the other, as fast as the other takes it, and its end when it ends. A reset is passed on as a reset.
 *
 * @returns Stops passing on; the sockets are then as they were, with `from` paused.
 */
export function pump(from: Socket, to: Socket): () => void {
  const onData = (chunk: Buffer): void => {
    if (!to.write(chunk)) from.pause();
  };
  const onDrain = (): unknown => from.resume();
  const onEnd = (): void => {
    to.end();
    for (const socket of [from, to]) socket.setTimeout(longestHalfClosedMs, () => socket.destroy());
  };
  const onError = (): unknown => to.resetAndDestroy();
  // Destroyed by this process, when there was no error and no end.
  const onClose = (): void => {
    if (!from.readableEnded) to.resetAndDestroy();
  };
  from.on('data', onData).on('end', onEnd).on('error', onError).on('close', onClose);
  to.on('drain', onDrain);
  if (from.destroyed) to.resetAndDestroy();
  else from.resume();
  return () => {
    from.pause();
    from.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose);
    to.off('drain', onDrain);
  };
}
