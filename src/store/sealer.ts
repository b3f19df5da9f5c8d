import { createCipheriv, createDecipheriv, createHash, createHmac, randomBytes } from 'node:crypto';
import { closeSync, existsSync, fstatSync, fsyncSync, linkSync, openSync, readSync, renameSync, unlinkSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PaddockError } from '../core/errors.ts';

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;
const rootPlace = 'store_facts/derivation_root';

/**
 * Seals texts for storage with AES-256-GCM. A sealed text is `v1.<key id>.<base64url of nonce, ciphertext and tag>`; the
 * key id says which key opens it, so that keys can be rotated. The place (table and row) is authenticated with it: a
 * sealed text copied to another row does not open.
 */
export class Sealer {
  /** Public name of the key: eight hex digits of its SHA-256. */
  readonly keyId: string;
  readonly #key: Buffer;
  readonly #root: Buffer;

  /** @param root what other keys are derived from; without one it is made from the key itself. */
  constructor(key: Buffer, root?: Buffer) {
    if (key.length !== keyBytes) throw new PaddockError('internal', `the master key must have ${keyBytes} bytes, not ${key.length}`);
    this.#key = key;
    // HKDF's first half (RFC 5869). It is kept when the master key is replaced: tokens of sandboxes that run are derived from it.
    this.#root = root ?? createHmac('sha256', 'paddock').update(key).digest();
    this.keyId = createHash('sha256').update('paddock key id').update(key).digest('hex').slice(0, 8);
  }

  seal(place: string, text: string): string {
    const nonce = randomBytes(nonceBytes);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce);
    cipher.setAAD(Buffer.from(place));
    const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    return `v1.${this.keyId}.${sealed.toString('base64url')}`;
  }

  open(place: string, sealed: string): string {
    const [version, keyId, body] = sealed.split('.');
    if (version !== 'v1' || keyId === undefined || body === undefined) {
      throw new PaddockError('internal', `the sealed value of ${place} has an unknown form; the row was damaged or altered`);
    }
    if (keyId !== this.keyId) {
      throw new PaddockError('internal', `the sealed value of ${place} needs master key ${keyId}, but this server has ${this.keyId}; restore the key file`);
    }
    const bytes = Buffer.from(body, 'base64url');
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#key, bytes.subarray(0, nonceBytes));
      decipher.setAAD(Buffer.from(place));
      decipher.setAuthTag(bytes.subarray(-tagBytes));
      return decipher.update(bytes.subarray(nonceBytes, -tagBytes), undefined, 'utf8') + decipher.final('utf8');
    } catch (cause) {
      throw new PaddockError('internal', `the sealed value of ${place} does not open: the row was altered or belongs to another one`, {}, { cause });
    }
  }

  /** Another key for another purpose (tokens, say), which says nothing about the master key. */
  derive(purpose: string): Buffer {
    return createHmac('sha256', this.#root).update(purpose).update(Buffer.of(1)).digest(); // HKDF's second half, of one block
  }

  /** The root of derived keys, to be kept sealed when another master key takes the place of this one. */
  sealRootWith(next: Sealer): string {
    return next.seal(rootPlace, this.#root.toString('hex'));
  }

  /** The same key with the root that a replaced one has left. */
  withRoot(sealed: string): Sealer {
    return new Sealer(this.#key, Buffer.from(this.open(rootPlace, sealed), 'hex'));
  }
}

/**
 * The master key in `file` (64 hex digits). Makes one with mode 0600 when there is none, unless `expected` names the key
 * that existing rows were sealed with. Refuses a file that others may read.
 */
export function loadSealer(file: string, expected: string | null): Sealer {
  if (expected !== null) adoptNext(file, expected);
  if (!existsSync(file)) {
    if (expected !== null) {
      throw new PaddockError('internal', `the master key ${file} is missing, and the database holds values sealed with it (key ${expected}); put it back from a backup`);
    }
    writeKey(file);
  }
  const sealer = new Sealer(readKey(file));
  if (expected !== null && sealer.keyId !== expected) {
    throw new PaddockError('internal', `the master key in ${file} is ${sealer.keyId}, but the database was sealed with ${expected}; put the right one back from a backup`);
  }
  return sealer;
}

/** Where the key lies that is to take the place of the one in `file`. */
export function nextKeyFile(file: string): string {
  return `${file}.next`;
}

/** A new key beside the one in `file`; one that an earlier attempt left goes. */
export function makeNextKey(file: string): Sealer {
  const next = nextKeyFile(file);
  if (existsSync(next)) unlinkSync(next);
  writeKey(next);
  return new Sealer(readKey(next));
}

/** The database is sealed with the next key already: a rotation got so far, and no further. The old key stays beside it. */
function adoptNext(file: string, expected: string): void {
  const next = nextKeyFile(file);
  if (!existsSync(next)) return;
  const old = existsSync(file) ? new Sealer(readKey(file)).keyId : null;
  if (old === expected || new Sealer(readKey(next)).keyId !== expected) return;
  if (old !== null && !existsSync(`${file}.${old}`)) linkSync(file, `${file}.${old}`);
  renameSync(next, file);
  syncDirectory(file);
}

function readKey(file: string): Buffer {
  const fd = openSync(file, 'r');
  try {
    const { mode } = fstatSync(fd);
    if ((mode & 0o077) !== 0) {
      throw new PaddockError('internal', `the master key ${file} can be read by others (mode ${(mode & 0o777).toString(8)}); run: chmod 600 ${file}`);
    }
    const buffer = Buffer.alloc(256);
    const text = buffer.toString('latin1', 0, readSync(fd, buffer)).trim();
    if (!/^[0-9a-f]{64}$/.test(text)) {
      throw new PaddockError('internal', `the master key ${file} is damaged: it must hold 64 hex digits; put it back from a backup`);
    }
    return Buffer.from(text, 'hex');
  } finally {
    closeSync(fd);
  }
}

/** Written whole beside its place and linked there: a crash leaves no half key, and a key that is there is never replaced. */
function writeKey(file: string): void {
  const draft = `${file}.${randomBytes(6).toString('hex')}`;
  const fd = openSync(draft, 'wx', 0o600);
  try {
    writeSync(fd, `${randomBytes(keyBytes).toString('hex')}\n`);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  try {
    linkSync(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    unlinkSync(draft);
  }
  syncDirectory(file);
}

/** Makes the name of a new file durable, not only its bytes. */
export function syncDirectory(file: string): void {
  const fd = openSync(join(dirname(file), '.'), 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
