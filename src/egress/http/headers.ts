/** Headers of one connection, not of the message (RFC 9110 section 7.6.1), and those that frame it, which each side writes for itself. */
const hopByHop = new Set(['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'upgrade', 'transfer-encoding', 'http2-settings']);

/**
 * The headers that go on to the next hop, in their order and spelling: name, value, name, value. Without those that concern this
 * connection only, among them all that `Connection` names.
 */
export function passedOn(rawHeaders: readonly string[]): string[] {
  const named = new Set<string>();
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]!.toLowerCase() === 'connection') for (const part of rawHeaders[i + 1]!.toLowerCase().split(',')) named.add(part.trim());
  }
  // What frames and addresses the message cannot be named away.
  for (const name of ['host', 'content-length', 'trailer']) named.delete(name);
  return withoutHeaders(rawHeaders, (name) => hopByHop.has(name) || named.has(name) || name.startsWith(':'));
}

export function hasHeader(rawHeaders: readonly string[], wanted: string): boolean {
  return headerValues(rawHeaders, wanted).length > 0;
}

/** Every value of the header, whose name is given in lower case. */
export function headerValues(rawHeaders: readonly string[], wanted: string): string[] {
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]!.toLowerCase() === wanted);
}

/** @param unwanted is given names in lower case. */
export function withoutHeaders(rawHeaders: readonly string[], unwanted: (name: string) => boolean): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) if (!unwanted(rawHeaders[i]!.toLowerCase())) kept.push(rawHeaders[i]!, rawHeaders[i + 1]!);
  return kept;
}

export function headerPairs(rawHeaders: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) pairs.push([rawHeaders[i]!, rawHeaders[i + 1]!]);
  return pairs;
}

/** As HTTP/2 wants them: names in lower case, several values of one name as a list. */
export function headerObject(rawHeaders: readonly string[]): Record<string, string | string[]> {
  const object: Record<string, string | string[]> = Object.create(null) as Record<string, string | string[]>;
  for (const [name, value] of headerPairs(rawHeaders)) {
    const key = name.toLowerCase();
    const earlier = object[key];
    object[key] = earlier === undefined ? value : [...[earlier].flat(), value];
  }
  return object;
}
