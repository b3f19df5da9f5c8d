import type { SecretRule } from '../network/inspection.ts';
import { invalid } from './faults.ts';

const longestValue = 8192;
// oxlint-disable-next-line no-control-regex
const control = /[\u0000-\u001f\u007f-\u009f]/;

/**
 * Refuses what no request can carry: a secret ends up in a header or a query. The message never repeats the value.
 *
 * @throws PaddockError `invalid_argument` naming the field and the limit.
 */
export function assertSecretValue(value: string, rules: readonly SecretRule[], field = 'value'): void {
  const bytes = Buffer.byteLength(value);
  if (bytes === 0) throw invalid(field, `is empty; a secret has 1 to ${longestValue} bytes`);
  if (bytes > longestValue) throw invalid(field, `has ${bytes} bytes; the limit is ${longestValue}`);
  if (/[\r\n]$/.test(value)) throw invalid(field, 'ends with a line break, as a file does; leave it out');
  if (control.test(value)) throw invalid(field, 'holds a control character (a line break, a tab, NUL …), which no header can carry');
  if (/[\ud800-\udfff]/.test(value)) throw invalid(field, 'holds a character beyond the Basic Multilingual Plane, such as an emoji');
  const inHeader = rules.some(({ place }) => place.kind === 'bearer' || place.kind === 'header' || place.kind === 'headers');
  if (inHeader && /[^\x20-\x7e]/.test(value)) throw invalid(field, 'holds a character beyond ASCII, which the header that it goes into cannot carry');
}
