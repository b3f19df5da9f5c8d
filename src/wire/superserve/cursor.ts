import type { LogPosition } from '../../core/networks.ts';

type Place = LogPosition['connection'];

/** A position in the log of one sandbox, which its reader may read anyway: nothing in it needs a seal. */
export function cursorOf({ connection, request }: LogPosition): string {
  const written = (place: Place): string => (place === null ? '' : `${place.at}.${place.seq}`);
  return Buffer.from(`${written(connection)}~${written(request)}`).toString('base64url');
}

/** Null for a text that is no cursor. */
export function positionOf(cursor: string): LogPosition | null {
  const match = /^(?:(\d{1,15})\.(\d{1,15}))?~(?:(\d{1,15})\.(\d{1,15}))?$/.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  if (match === null) return null;
  const read = (at: string | undefined, seq: string | undefined): Place => (at === undefined ? null : { at: Number(at), seq: Number(seq) });
  return { connection: read(match[1], match[2]), request: read(match[3], match[4]) };
}
