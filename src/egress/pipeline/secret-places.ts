import type { SecretRule } from '../../core/network/inspection.ts';
import { Refusal, type RequestHead } from './stage.ts';

/** `{{ value }}` in a template of a header. */
const slot = /\{\{\s*value\s*\}\}/g;

/**
 * Whether the guest has put the stand-in into the place of the rule, and nothing else there.
 *
 * @throws Refusal when the place is there more than once: servers differ in which one they read.
 */
export function holdsStandIn({ place }: SecretRule, head: RequestHead, standIn: string): boolean {
  switch (place.kind) {
    case 'bearer': {
      const [scheme, text] = authorization(head, standIn) ?? [];
      // `token` is what GitHub's own tools write.
      return (scheme === 'bearer' || scheme === 'token') && text === standIn;
    }
    case 'basic': {
      const [scheme, text = ''] = authorization(head, standIn) ?? [];
      if (scheme !== 'basic') return false;
      const [user, password] = userAndPassword(text);
      return password === standIn || (user === standIn && password === '');
    }
    case 'header': {
      const text = only(head, place.name, standIn);
      return text === standIn || (text !== null && text.toLowerCase() === `${place.prefix}${standIn}`.toLowerCase() && text.endsWith(standIn));
    }
    case 'headers': {
      // Each is looked at, so that none of them is there twice.
      const texts = Object.entries(place.headers).map(([name, template]) => {
        const text = only(head, name, standIn);
        return text === standIn || (text !== null && text === template.replaceAll(slot, () => standIn));
      });
      return texts.includes(true);
    }
    case 'query': {
      const texts = parameters(head.target).filter(([name]) => name === place.name);
      if (texts.length > 1 && texts.some(([, text]) => text === standIn)) throw twice(`query parameter ${place.name}`);
      return texts[0]?.[1] === standIn;
    }
  }
}

/** The request with the value in the place of the rule, whatever was there, and what the rule sets besides. */
export function withValue(rule: SecretRule, head: RequestHead, value: string): RequestHead {
  const { place, extraHeaders, extraQuery } = rule;
  const headers: Record<string, string> = {};
  let target = head.target;
  switch (place.kind) {
    case 'bearer':
      headers['Authorization'] = `Bearer ${value}`;
      break;
    case 'basic':
      headers['Authorization'] = `Basic ${Buffer.from(`${place.username ?? inboundUser(head)}:${value}`).toString('base64')}`;
      break;
    case 'header':
      headers[place.name] = `${place.prefix}${value}`;
      break;
    case 'headers':
      for (const [name, template] of Object.entries(place.headers)) headers[name] = template.replaceAll(slot, () => value);
      break;
    case 'query':
      target = withParameter(target, place.name, value);
  }
  Object.assign(headers, extraHeaders);
  for (const [name, text] of Object.entries(extraQuery)) target = withParameter(target, name, text);
  return { ...head, target, headers: withHeaders(head.headers, headers) };
}

/** Deletes each of the headers, however often and in whatever case it is there, and sets it anew. */
function withHeaders(headers: readonly string[], set: Readonly<Record<string, string>>): string[] {
  const names = new Set(Object.keys(set).map((name) => name.toLowerCase()));
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2) if (!names.has(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!);
  for (const [name, text] of Object.entries(set)) kept.push(name, Buffer.from(text).toString('latin1')); // as the bytes of its UTF-8
  return kept;
}

function withParameter(target: string, name: string, text: string): string {
  const at = target.indexOf('?');
  const query = at < 0 ? '' : target.slice(at + 1);
  const kept = query.split('&').filter((part) => part !== '' && decodeParameter(part.split('=', 1)[0]!) !== name);
  return `${at < 0 ? target : target.slice(0, at)}?${[...kept, `${encodeURIComponent(name)}=${encodeURIComponent(text)}`].join('&')}`;
}

function parameters(target: string): [string, string][] {
  const at = target.indexOf('?');
  if (at < 0) return [];
  return target.slice(at + 1).split('&').map((part) => {
    const equals = part.indexOf('=');
    return equals < 0 ? [decodeParameter(part), ''] : [decodeParameter(part.slice(0, equals)), decodeParameter(part.slice(equals + 1))];
  });
}

function decodeParameter(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text;
  }
}

/** Scheme in lower case and what follows it. */
function authorization(head: RequestHead, standIn: string): [string, string] | null {
  const match = /^([A-Za-z][A-Za-z0-9-]*)[ \t]+(\S+)[ \t]*$/.exec(only(head, 'authorization', standIn) ?? '');
  return match === null ? null : [match[1]!.toLowerCase(), match[2]!];
}

function inboundUser(head: RequestHead): string {
  const header = valuesOf(head, 'authorization')[0] ?? '';
  const match = /^basic[ \t]+(\S+)[ \t]*$/i.exec(header);
  const [user, password] = match === null ? ['', ''] : userAndPassword(match[1]!);
  return password === '' || user === '' ? 'x' : user;
}

function userAndPassword(base64: string): [string, string] {
  const text = Buffer.from(base64, 'base64').toString();
  const colon = text.indexOf(':');
  return colon < 0 ? [text, ''] : [text.slice(0, colon), text.slice(colon + 1)];
}

/** The only header of that name. @throws Refusal when there are several and one of them could hold the stand-in. */
function only(head: RequestHead, name: string, standIn: string): string | null {
  const texts = valuesOf(head, name);
  if (texts.length > 1 && texts.some((text) => text.includes(standIn) || /^basic\b/i.test(text))) throw twice(`header ${name}`);
  return texts.length === 1 ? texts[0]! : null;
}

function valuesOf(head: RequestHead, name: string): string[] {
  const texts: string[] = [];
  for (let i = 0; i < head.headers.length; i += 2) if (head.headers[i]!.toLowerCase() === name.toLowerCase()) texts.push(head.headers[i + 1]!.trim());
  return texts;
}

function twice(what: string): Refusal {
  return new Refusal(403, 'credential_misplaced', `The request has the ${what} more than once, so that no credential is put into it.`);
}
