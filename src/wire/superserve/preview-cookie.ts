/** The value of a cookie in a `Cookie` header; null without it. */
export function presentedCookie(header: string, name: string): string | null {
  const pair = pairsOf(header).find((each) => nameOf(each) === name);
  return pair === undefined ? null : pair.slice(pair.indexOf('=') + 1).trim();
}

/** The header without that cookie; null when nothing is left. */
export function withoutCookie(header: string | undefined, name: string): string | null {
  const left = pairsOf(header ?? '').filter((each) => nameOf(each) !== name);
  return left.length === 0 ? null : left.join('; ');
}

function pairsOf(header: string): string[] {
  return header.split(';').map((each) => each.trim()).filter((each) => each !== '');
}

function nameOf(pair: string): string {
  return pair.split('=', 1)[0]!.trim();
}
