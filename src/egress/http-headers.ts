/** Headers of one connection, not of the message (RFC 9110 section 7.6.1). */
const hopByHop = new Set(['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'upgrade', 'transfer-encoding']);

/**
 * The headers that go on to the next hop, in their order and spelling: name, value, name, value. Without those that concern this
 * connection only, among them all that `Connection` names. Chunked bodies stay chunked.
 */
export function passedOn(rawHeaders: readonly string[], extra: readonly string[] = []): string[] {
  const named = new Set<string>();
  let chunked = false;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase();
    if (name === 'connection') for (const part of rawHeaders[i + 1]!.toLowerCase().split(',')) named.add(part.trim());
    if (name === 'transfer-encoding') chunked = true;
  }
  // What frames and addresses the message cannot be named away.
  for (const name of ['host', 'content-length', 'trailer']) named.delete(name);
  const kept: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase();
    if (!hopByHop.has(name) && !named.has(name)) kept.push(rawHeaders[i]!, rawHeaders[i + 1]!);
  }
  if (chunked) kept.push('Transfer-Encoding', 'chunked');
  return [...kept, ...extra];
}

export function hasHeader(rawHeaders: readonly string[], wanted: string): boolean {
  return rawHeaders.some((name, i) => i % 2 === 0 && name.toLowerCase() === wanted);
}
