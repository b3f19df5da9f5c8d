import { createHash, randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';

/** Undefined when the file is missing or not JSON: both mean "make it again". */
export async function readJson(path) {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch {
    return undefined;
  }
}

/** Written beside and renamed, so that a reader sees the old file or the new one. */
export async function writeJson(path, value) {
  const beside = `${path}.${randomBytes(4).toString('hex')}.tmp`;
  await writeFile(beside, `${JSON.stringify(value, null, 2)}\n`, { mode: 0o644 });
  await rename(beside, path);
}

/** @param {'sha256' | 'sha512'} algorithm @param {'hex' | 'base64'} encoding */
export function hashFile(path, algorithm = 'sha256', encoding = 'hex') {
  return new Promise((resolve, reject) => {
    const hash = createHash(algorithm);
    createReadStream(path)
      .on('error', reject)
      .on('data', (chunk) => hash.update(chunk))
      .on('end', () => resolve(hash.digest(encoding)));
  });
}
