import { shortestPattern } from './matcher.ts';

/**
 * The ways in which programs write a text into URLs, JSON, HTML and headers: as it is, escaped in whole or where needed, in hexadecimal, and
 * in base64 at any place of a longer text. Without those that are too short to be told from other text.
 */
export function spellings(text: string): Buffer[] {
  const bytes = Buffer.from(text);
  const percent = encodeURIComponent(text);
  const strict = percent.replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
  const everyPercent = [...bytes].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('');
  const json = JSON.stringify(text).slice(1, -1);
  const jsonAscii = json.replaceAll(/[\u007F-\uFFFF]/g, unicode);
  const everyUnicode = Array.from({ length: text.length }, (_, i) => unicode(text[i]!)).join('');
  const html = text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
  const hex = bytes.toString('hex');
  const texts = [
    text,
    ...[percent, strict, strict.replaceAll('%20', '+'), percent.replaceAll('%20', '+'), encodeURIComponent(percent)].flatMap((form) => [form, form.replaceAll(/%[0-9A-F]{2}/g, (escape) => escape.toLowerCase())]),
    ...[everyPercent, everyUnicode].flatMap((form) => [form, form.replaceAll(/[0-9a-f]{2,4}/g, (digits) => digits.toUpperCase())]),
    json,
    jsonAscii,
    json.replaceAll('/', '\\/'),
    jsonAscii.replaceAll(/[<>&']/g, unicode),
    html,
    ...['&#39;', '&#x27;', '&#039;'].flatMap((quote) => [html.replaceAll("'", quote), html.replaceAll("'", quote).replaceAll('&quot;', '&#34;')]),
    hex,
    hex.toUpperCase(),
    ...base64Cores(bytes),
  ];
  return [...new Set(texts)].map((form) => Buffer.from(form)).filter((form) => form.length >= shortestPattern);
}

/** What is the same in the base64 of every text that holds these bytes, for each of the three ways in which they can lie in it. */
function base64Cores(bytes: Buffer): string[] {
  return [0, 1, 2].flatMap((before) => {
    const whole = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64');
    const core = whole.slice(Math.ceil((before * 8) / 6), Math.floor(((before + bytes.length) * 8) / 6));
    return [core, core.replaceAll('+', '-').replaceAll('/', '_')];
  });
}

function unicode(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

const [percentSign, backslash, letterU] = [0x25, 0x5c, 0x75];

/** Undoes percent-encoding and the escapes of JSON as bytes come, whichever characters they were used for. What is no escape stays. */
export class Unescaper {
  #rest = Buffer.alloc(0);

  push(chunk: Buffer): Buffer {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#rest = Buffer.alloc(0);
    if (!bytes.includes(percentSign) && !bytes.includes(backslash)) return bytes;
    const out = Buffer.allocUnsafe(bytes.length);
    let size = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]!;
      if (byte !== percentSign && byte !== backslash) {
        out[size++] = byte;
        continue;
      }
      const long = byte === backslash && bytes[at + 1] === letterU;
      const length = byte === percentSign ? 3 : long ? 6 : 2;
      if (at + length > bytes.length) {
        this.#rest = Buffer.from(bytes.subarray(at));
        break;
      }
      const value = length === 2 ? bytes[at + 1]! : hexAt(bytes, at + (long ? 2 : 1), long ? 4 : 2);
      out[size++] = value < 0 || value > 255 ? byte : value;
      if (value >= 0 && value <= 255) at += length - 1;
    }
    return out.subarray(0, size);
  }
}

/** Negative when there are other characters than hexadecimal digits. */
function hexAt(bytes: Buffer, at: number, digits: number): number {
  let value = 0;
  for (let i = at; i < at + digits; i++) {
    const byte = bytes[i]!;
    const digit = byte >= 0x30 && byte <= 0x39 ? byte - 0x30 : (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x66 ? (byte | 0x20) - 0x57 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}
