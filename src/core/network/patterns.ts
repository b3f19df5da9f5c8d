import { RE2JS } from 're2js';

/**
 * Host names are matched without their letters' case, and `.` is any character: rules are written by people, names are in one form. The
 * engine works in time linear in pattern × name, whatever the pattern: no look-around, no back references.
 */
const flags = RE2JS.CASE_INSENSITIVE | RE2JS.DOTALL;

/** By rule, so that each is compiled once, and forgotten with its policy. */
const compiled = new WeakMap<object, RE2JS>();

/** How much work a pattern is per character of a name, in instructions of its program. @throws Error with what is wrong with it. */
export function weighPattern(pattern: string): number {
  return compile(pattern).programSize();
}

/** Whether the pattern of a rule matches the whole name. */
export function patternMatches(rule: { readonly pattern: string }, name: string): boolean {
  let engine = compiled.get(rule);
  if (engine === undefined) {
    engine = compile(rule.pattern);
    compiled.set(rule, engine);
  }
  return engine.matches(name);
}

function compile(pattern: string): RE2JS {
  return RE2JS.compile(pattern, flags);
}
