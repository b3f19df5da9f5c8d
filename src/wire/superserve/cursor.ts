/** A position in the log of one sandbox, which its reader may read anyway: nothing in it needs a seal. */
export function cursorOf({ at, seq }: { readonly at: number; readonly seq: number }): string {
  return Buffer.from(`${at}.${seq}`).toString('base64url');
}

/** Null for a text that is no cursor. */
export function positionOf(cursor: string): { readonly at: number; readonly seq: number } | null {
  const match = /^(\d{1,15})\.(\d{1,15})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1'));
  return match === null ? null : { at: Number(match[1]), seq: Number(match[2]) };
}
