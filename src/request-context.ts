import { AsyncLocalStorage } from 'node:async_hooks';

/** The request that some work is done for, so that every line of the log about it can name it. */
interface RequestContext {
  readonly reqId: string;
}

const storage = new AsyncLocalStorage<RequestContext>();
const start = Date.now().toString(36);
let count = 0;

/** Runs what answers a request; whatever it awaits or starts knows the request's id. */
export function inRequest<T>(work: () => T): T {
  return storage.run({ reqId: `${start}-${(++count).toString(36)}` }, work);
}

/** The id of the request that is being answered; null outside of one. */
export function requestId(): string | null {
  return storage.getStore()?.reqId ?? null;
}
