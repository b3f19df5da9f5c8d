import koffi from 'koffi';

/*
 * Extended attributes, which Node has no calls for: https://man7.org/linux/man-pages/man7/xattr.7.html. A link is never followed at the end
 * of a path. Paths are bytes: what a guest names its files need not be text.
 */

const libc = koffi.load('libc.so.6');
const llistxattr = libc.func('long llistxattr(const uint8_t *path, _Out_ uint8_t *list, size_t size)');
const lgetxattr = libc.func('long lgetxattr(const uint8_t *path, const uint8_t *name, _Out_ uint8_t *value, size_t size)');
const lremovexattr = libc.func('int lremovexattr(const uint8_t *path, const uint8_t *name)');
const lsetxattr = libc.func('int lsetxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t size, int flags)');

/** The kernel's own limit, of the list and of each value: no file has more. */
const largest = 65_536;
const room = Buffer.alloc(largest);
const notSupported = koffi.os.errno['ENOTSUP'] ?? 95;

export function listXattrs(path: Buffer): string[] {
  const size = Number(llistxattr(terminated(path), room, largest));
  if (size < 0) {
    if (koffi.errno() === notSupported) return [];
    throw failure('llistxattr', path);
  }
  // One character a byte, whatever the bytes mean.
  return room.toString('latin1', 0, size).split('\0').slice(0, -1);
}

export function getXattr(path: Buffer, name: string): Buffer {
  const size = Number(lgetxattr(terminated(path), nameBytes(name), room, largest));
  if (size < 0) throw failure(`lgetxattr ${name}`, path);
  return Buffer.from(room.subarray(0, size));
}

export function setXattr(path: Buffer, name: string, value: Buffer): void {
  if (lsetxattr(terminated(path), nameBytes(name), value, value.length, 0) < 0) throw failure(`lsetxattr ${name}`, path);
}

export function removeXattr(path: Buffer, name: string): void {
  if (lremovexattr(terminated(path), nameBytes(name)) < 0) throw failure(`lremovexattr ${name}`, path);
}

function nameBytes(name: string): Buffer {
  return terminated(Buffer.from(name, 'latin1'));
}

function terminated(path: Buffer): Buffer {
  return Buffer.concat([path, Buffer.of(0)]);
}

function failure(call: string, path: Buffer): Error {
  return new Error(`${call} failed on ${path.toString()} (errno ${koffi.errno()})`);
}
