import { PaddockError } from '../../../core/errors.ts';

/** Status that a server has answered with, or null when it has not. */
export function statusOf(error: unknown): number | null {
  return (error as { $metadata?: { httpStatusCode?: number } } | null)?.$metadata?.httpStatusCode ?? null;
}

/** What the store's failure is to whoever wanted something of a volume. */
export function unreachable(error: unknown): PaddockError {
  return new PaddockError('no_capacity', 'the object store that volumes lie in cannot be used at the moment; try again', { retryAfterSeconds: 5, reason: 'volume_store' }, { cause: error });
}

/** Whether a write that failed may be there all the same, now or in a moment. */
export function mayHaveArrived(error: unknown): boolean {
  const status = statusOf(error instanceof PaddockError ? error.cause : error);
  return status === null || status >= 500;
}

/** Why the store cannot be used, for the operator, as the rest of a sentence. Never has a key in it. */
export function whyUnusable(error: unknown): string {
  const cause = (error instanceof PaddockError ? error.cause : error) as (Error & { code?: string; Code?: string }) | undefined;
  const name = cause?.Code ?? cause?.name ?? '';
  switch (name) {
    case 'NoSuchBucket':
      return 'there is no such bucket; make it first';
    case 'InvalidAccessKeyId':
      return 'the server does not know the access key';
    case 'SignatureDoesNotMatch':
      return 'the secret key does not belong to the access key';
    case 'AccessDenied':
      return 'the key may not read, write, list and remove objects there';
    case 'AuthorizationHeaderMalformed':
    case 'PermanentRedirect':
      return 'the bucket is in another region; set PADDOCK_VOLUME_STORE_REGION';
    default:
      break;
  }
  const status = statusOf(cause);
  if (status === 403) return 'the server refuses the key (403)';
  if (status !== null && status !== 200) return `the server answers ${status} ${name}`.trimEnd();
  return `the server cannot be reached (${cause?.code ?? name})`;
}
