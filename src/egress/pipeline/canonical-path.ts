/**
 * The path of a request in the one form in which rules are compared and in which it is then sent: unreserved characters decoded, escapes in
 * upper case, without dot segments (RFC 3986 section 6.2.2). Null for what some server might read as another path: encoded slashes and
 * backslashes, empty segments, parameters of dot segments, escapes of escapes, broken escapes and control characters.
 */
export function canonicalPath(target: string): string | null {
  const raw = target.split('?', 1)[0]!;
  if (!raw.startsWith('/') || !/^[!-~]*$/.test(raw) || /[\\#]/.test(raw) || raw.includes('//')) return null;
  if (/%(?![0-9A-Fa-f]{2})/.test(raw) || /%(2f|5c|25|[01][0-9a-f]|7f)/i.test(raw)) return null;
  const path = raw.replaceAll(/%[0-9A-Fa-f]{2}/g, (escape) => {
    const char = String.fromCharCode(Number.parseInt(escape.slice(1), 16));
    return /[A-Za-z0-9._~-]/.test(char) ? char : escape.toUpperCase();
  });
  const kept: string[] = [];
  const segments = path.slice(1).split('/');
  for (const [i, segment] of segments.entries()) {
    if (/^\.{1,2}(;|%3B)/.test(segment)) return null;
    if (segment === '..') kept.pop();
    else if (segment !== '.') kept.push(segment);
    if ((segment === '..' || segment === '.') && i === segments.length - 1) kept.push('');
  }
  return `/${kept.join('/')}`;
}

/** Whether a canonical path is the prefix or lies below it. */
export function isBelow(path: string, prefix: string): boolean {
  return path === prefix || path.startsWith(prefix.endsWith('/') ? prefix : `${prefix}/`);
}
