/** What a part of a multipart body is given to. */
export interface PartFilter {
  write(chunk: Buffer): Buffer;
  end(): Buffer;
}

export interface MultipartOptions {
  /** As the `Content-Type` names it, without quotes. */
  readonly boundary: string;
  /** Makes the filter of a part by its headers, names in small letters; null passes the part on untouched. */
  readonly filterFor: (headers: ReadonlyMap<string, string>) => PartFilter | null;
}

const longestHeaders = 16 << 10;
const mostParts = 10_000;

/** The body cannot be read as its type says. */
export class MalformedMultipart extends Error {}

/** Gives each part of a multipart body (RFC 2046 section 5.1) to a filter of its own; boundaries and headers of parts pass unchanged. */
export class MultipartFilter implements PartFilter {
  readonly #delimiter: Buffer;
  readonly #filterFor: MultipartOptions['filterFor'];
  #state: 'preamble' | 'headers' | 'body' | 'epilogue' = 'preamble';
  /** A line break before the first boundary may be missing: it is put here, and left out of what is given back. */
  #held: Buffer = Buffer.from('\r\n');
  #skip = 2;
  #part: PartFilter | null = null;
  #parts = 0;

  constructor({ boundary, filterFor }: MultipartOptions) {
    this.#delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1');
    this.#filterFor = filterFor;
  }

  /** @throws MalformedMultipart */
  write(chunk: Buffer): Buffer {
    this.#held = Buffer.concat([this.#held, chunk]);
    const out: Buffer[] = [];
    while (this.#step(out));
    return this.#given(out);
  }

  /** @throws MalformedMultipart for a body that ends before its last boundary: what follows might be cut off on purpose. */
  end(): Buffer {
    if (this.#state !== 'epilogue') throw new MalformedMultipart('the multipart body ends before its last boundary');
    return this.#given([this.#held]);
  }

  #given(out: readonly Buffer[]): Buffer {
    const bytes = Buffer.concat(out);
    const skipped = Math.min(this.#skip, bytes.length);
    this.#skip -= skipped;
    return bytes.subarray(skipped);
  }

  /** Whether there may be more to do with what is held. */
  #step(out: Buffer[]): boolean {
    if (this.#state === 'epilogue') {
      out.push(this.#held);
      this.#held = Buffer.alloc(0);
      return false;
    }
    return this.#state === 'headers' ? this.#headers(out) : this.#body(out);
  }

  #body(out: Buffer[]): boolean {
    const at = this.#held.indexOf(this.#delimiter);
    if (at < 0) {
      const sure = Math.max(0, this.#held.length - this.#delimiter.length + 1);
      out.push(this.#part === null ? this.#held.subarray(0, sure) : this.#part.write(this.#held.subarray(0, sure)));
      this.#held = Buffer.from(this.#held.subarray(sure));
      return false;
    }
    const line = at + this.#delimiter.length;
    const end = this.#held.indexOf('\n', line);
    const last = this.#held.toString('latin1', line, line + 2) === '--';
    if (!last && end < 0) {
      if (this.#held.length - line > 256) throw new MalformedMultipart('a boundary of the multipart body does not end');
      return false;
    }
    const body = this.#held.subarray(0, at);
    out.push(...(this.#part === null ? [body] : [this.#part.write(body), this.#part.end()]));
    this.#part = null;
    const next = last ? line + 2 : end + 1;
    out.push(this.#held.subarray(at, next));
    this.#held = this.#held.subarray(next);
    this.#state = last ? 'epilogue' : 'headers';
    return true;
  }

  #headers(out: Buffer[]): boolean {
    const empty = this.#held.subarray(0, 2).toString('latin1') === '\r\n';
    const end = empty ? 0 : this.#held.indexOf('\r\n\r\n');
    if (end < 0) {
      if (this.#held.length > longestHeaders) throw new MalformedMultipart(`the headers of a part have more than ${longestHeaders} bytes`);
      return false;
    }
    if (++this.#parts > mostParts) throw new MalformedMultipart(`the multipart body has more than ${mostParts} parts`);
    const headers = new Map<string, string>();
    for (const line of this.#held.toString('latin1', 0, end).split('\r\n')) {
      const colon = line.indexOf(':');
      if (colon > 0) headers.set(line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim());
    }
    this.#part = this.#filterFor(headers);
    // The line break that ends the headers may also begin the next boundary: a part may be empty.
    const next = empty ? 0 : end + 2;
    out.push(this.#held.subarray(0, next));
    const rest = this.#held.subarray(next);
    this.#state = 'body';
    if (rest.indexOf(this.#delimiter) === 0) {
      this.#held = rest;
      return true;
    }
    out.push(rest.subarray(0, 2));
    this.#held = rest.subarray(2);
    return true;
  }
}
