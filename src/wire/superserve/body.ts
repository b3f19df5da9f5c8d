import type { Static, TSchema } from 'typebox';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { PaddockError } from '../../core/errors.ts';
import { jsonBodyLimit } from '../json-body.ts';

/** The one text for every body of the wrong shape (contract, section 2). */
export const malformed = 'invalid request body: it must be one JSON object with only the documented fields, each of its documented type';

/** What a body that is too large is told. */
export const tooLargeAdvice = `Bodies have at most ${jsonBodyLimit / 1024 / 1024} MiB; write large data with POST /files.`;

/** A field that may be left out; clients in Go and Python write null for that. */
export const optional = <T extends TSchema>(schema: T) => Type.Optional(Type.Union([schema, Type.Null()]));

export const StringMap = Type.Record(Type.String(), Type.String());

/** The body's type, with `undefined` for what was left out or null. */
export type Present<T> = { readonly [K in keyof T]: Exclude<T[K], null> };

/**
 * A reader of strict bodies: a field that nobody knows, or of another type, is refused with the one text.
 *
 * @param foreign fields of another wire's request, and what to tell whoever sends them.
 */
export function bodyReader<T extends TSchema>(schema: T, foreign: { readonly fields: readonly string[]; readonly advice: string } | null = null): (body: unknown) => Present<Static<T>> {
  const validator = Compile(schema);
  return (body) => {
    if (typeof body === 'object' && body !== null && !Array.isArray(body)) {
      const wrong = foreign?.fields.find((field) => Object.hasOwn(body, field));
      if (foreign !== null && wrong !== undefined) throw new PaddockError('invalid_argument', `${wrong} ${foreign.advice}`, { field: wrong });
    }
    if (!validator.Check(body)) throw new PaddockError('invalid_argument', malformed);
    return Object.fromEntries(Object.entries(body as object).filter(([, value]) => value !== null)) as Present<Static<T>>;
  };
}

/** A strict object. */
export function strict<T extends Record<string, TSchema>>(fields: T) {
  return Type.Object(fields, { additionalProperties: false });
}
