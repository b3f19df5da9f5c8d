import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto';
import { closeSync, existsSync, fstatSync, fsyncSync, linkSync, openSync, readSync, unlinkSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PaddockError } from '../core/errors.ts';

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/**
 * Seals texts for storage with AES-256-GCM. A sealed text is `v1.<key id>.<base64url of nonce, ciphertext and tag>`; the
 * key id says which key opens it, so that keys can be rotated. The place (table and row) is authenticated with it: a
 * sealed text copied to another row does not open.
 */
export class Sealer {
  /** Public name of the key: eight hex digits of its SHA-256. */
  readonly keyId: string;
  readonly #key: Buffer;

  constructor(key: Buffer) {
    if (key.length !== keyBytes) throw new PaddockError('internal', `the master key must have ${keyBytes} bytes, not ${key.length}`);
    this.#key = key;
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
    return Buffer.from(hkdfSync('sha256', this.#key, 'paddock', purpose, keyBytes));
  }
}

/**
 * The master key in `file` (64 hex digits). Makes one with mode 0600 when there is none, unless `expected` names the key
 * that existing rows were sealed with. Refuses a file that others may read.
 */
export function loadSealer(file: string, expected: string | null): Sealer {
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
