import { createHmac, timingSafeEqual } from 'node:crypto';
import { PaddockError } from '../../core/errors.ts';
import { parseSandboxId } from '../../core/ids.ts';

/** Where a page ended: the last item that was shown. */
export interface Position<Id extends string> {
  readonly createdAt: number;
  readonly id: Id;
}

const idBytes = 16;
const timeBytes = 8;
const sealBytes = 12;

/**
 * Writes and reads the `next_token` of listings: creation time, id and a seal over both, base64url. The seal keeps clients from
 * depending on what is inside, and a forged position from reaching the store.
 */
export class Cursors {
  readonly #key: Buffer;

  constructor(key: Buffer) {
    this.#key = key;
  }

  write(position: Position<string>): string {
    const plain = Buffer.alloc(timeBytes + idBytes);
    plain.writeDoubleBE(position.createdAt);
    plain.write(position.id.replaceAll('-', ''), timeBytes, 'hex');
    return Buffer.concat([plain, this.#seal(plain)]).toString('base64url');
  }

  /** @throws PaddockError `invalid_argument` for a token that this server has not written. */
  read<Id extends string>(token: string): Position<Id> {
    const bytes = Buffer.from(token, 'base64url');
    const plain = bytes.subarray(0, timeBytes + idBytes);
    const seal = bytes.subarray(timeBytes + idBytes);
    const hex = plain.toString('hex', timeBytes);
    const id = parseSandboxId(hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'));
    // Compared as text too: base64url reads the same bytes from several spellings, and only ours is a cursor.
    if (id === null || seal.length !== sealBytes || bytes.toString('base64url') !== token || !timingSafeEqual(seal, this.#seal(plain))) {
      throw new PaddockError('invalid_argument', 'next_token is not a cursor of this server: pass on the next_token of the page before, unchanged.', { field: 'next_token' });
    }
    return { createdAt: plain.readDoubleBE(0), id: id as string as Id };
  }

  #seal(plain: Buffer): Buffer {
    return createHmac('sha256', this.#key).update(plain).digest().subarray(0, sealBytes);
  }
}
