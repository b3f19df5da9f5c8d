import { PaddockError } from '../errors.ts';

/** A value that a field of a request may not have. */
export function invalid(field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} ${what}`, { field });
}

/** A text of a request as a message may repeat it. */
export function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
