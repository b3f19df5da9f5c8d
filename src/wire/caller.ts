import type { FastifyReply } from 'fastify';
import type { Principal } from '../core/principal.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks; set by the wire's authentication before any handler runs. */
    principal: Principal;
  }
}

/**
 * Fires when the client has left before its answer was complete, and with `also`. Not fastify's `request.signal`: that follows the
 * request's own stream, which closes as soon as the body has been read.
 */
export function callerSignal(reply: FastifyReply, also?: AbortSignal): AbortSignal {
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  const { raw } = reply;
  if (raw.destroyed || also?.aborted) {
    abort();
    return controller.signal;
  }
  // Plain listeners, not AbortSignal.any: `also` lives as long as the server, and this runs for every command.
  also?.addEventListener('abort', abort);
  raw.once('close', () => {
    also?.removeEventListener('abort', abort);
    if (!raw.writableFinished) abort();
  });
  return controller.signal;
}
