/** What a registry asks for with 401 (RFC 9110 section 11.6.1). Names in lower case. */
export interface Challenge {
  readonly scheme: string;
  readonly parameters: Readonly<Record<string, string>>;
}

const longest = 8192;
const token = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const parameter = /([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))/y;

/** The challenges in a `WWW-Authenticate`; as many as can be read. */
export function parseChallenges(header: string): readonly Challenge[] {
  const found: { scheme: string; parameters: Record<string, string> }[] = [];
  const text = header.slice(0, longest);
  for (let at = 0; at < text.length; ) {
    if (/[\s,]/.test(text[at]!)) {
      at++;
      continue;
    }
    parameter.lastIndex = at;
    const pair = parameter.exec(text);
    if (pair !== null && found.length > 0) {
      const [all, name = '', quoted, plain = ''] = pair;
      found.at(-1)!.parameters[name.toLowerCase()] ??= quoted === undefined ? plain : quoted.replace(/\\(.)/g, '$1');
      at += all.length;
      continue;
    }
    token.lastIndex = at;
    const scheme = token.exec(text)?.[0];
    if (scheme === undefined) break;
    found.push({ scheme: scheme.toLowerCase(), parameters: Object.create(null) as Record<string, string> });
    at += scheme.length;
  }
  return found;
}
