import { invalid, shown } from './faults.ts';

/** What frames a message, says where it goes or belongs to one connection: a secret there would change what the request is (RFC 9110, section 7.6). */
const unusable: ReadonlySet<string> = new Set([
  'host', 'content-length', 'content-encoding', 'content-type', 'transfer-encoding', 'connection', 'keep-alive', 'proxy-connection', 'proxy-authorization', 'proxy-authenticate', 'te', 'trailer', 'upgrade',
  'expect', 'http2-settings', 'range', 'accept-encoding', 'via', 'forwarded', 'max-forwards',
]);

/** A name that a secret may be put under; lower case comes back. @throws PaddockError `invalid_argument` naming the field. */
export function parseHeaderName(name: string, field: string): string {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/.test(name)) throw invalid(field, `must be a name of an HTTP header, at most 128 characters, but is ${shown(name)}`);
  const lower = name.toLowerCase();
  if (unusable.has(lower)) throw invalid(field, `${shown(name)} cannot be set: it belongs to the connection or to the form of the message`);
  return lower;
}

/** A text that may stand in a header. */
export function assertHeaderText(text: string, field: string, longest = 1024): void {
  if (text.length > longest) throw invalid(field, `has ${text.length} characters; the limit is ${longest}`);
  if (/[^\x20-\x7e]/.test(text)) throw invalid(field, 'holds a control character or one beyond ASCII');
}
