import { BuildFailure } from '../../../core/templates/build-host.ts';
import { collect, type Descriptor, type Digest, digestOf, parseDigest, verified } from '../digest.ts';
import type { ContentStore, Found } from '../locate.ts';
import { imageTypes, indexTypes, isObject, mostManifestBytes, parseObject } from '../manifest.ts';
import type { RegistryReference } from '../reference.ts';
import { parseChallenges } from './challenge.ts';
import { type Endpoint, formatEndpoint, urlOf } from './endpoint.ts';
import { type Answer, Busy, describeFault, discard, type Requests } from './requests.ts';

export interface Login {
  readonly username: string;
  readonly password: string;
}

const mostTokenBytes = 64 * 1024;
const mostErrorBytes = 16 * 1024;
/** For a document as a whole; a layer only has to keep coming. */
const longestDocumentMs = 60_000;
/** A connection that has brought so much may break again. */
const progressBytes = 8 * 1024 * 1024;
const mostBreaks = 50;
const mostRepetitions = 2;

/** One repository of a registry. https://github.com/opencontainers/distribution-spec/blob/main/spec.md */
export class Repository implements ContentStore {
  readonly name: string;
  readonly #endpoint: Endpoint;
  readonly #repository: string;
  readonly #login: Login | null;
  readonly #requests: Requests;
  #authorization: string | null = null;

  constructor(endpoint: Endpoint, repository: string, login: Login | null, requests: Requests) {
    this.#endpoint = endpoint;
    this.#repository = repository;
    this.#login = login;
    this.#requests = requests;
    this.name = formatEndpoint(endpoint);
  }

  /** What a reference names: by digest if it has one. */
  async find({ tag, digest }: RegistryReference, signal: AbortSignal): Promise<Found> {
    const found = await this.#document(digest ?? tag ?? 'latest', signal);
    if (digest !== null && found.digest !== digest) throw new BuildFailure('image_pull_failed', `${this.name} sent something else for ${digest}: its digest is ${found.digest}`);
    return found;
  }

  async manifest(descriptor: Descriptor, signal: AbortSignal): Promise<Uint8Array> {
    const { bytes, digest } = await this.#document(descriptor.digest, signal);
    if (digest !== descriptor.digest) throw new BuildFailure('image_pull_failed', `${this.name} sent something else for ${descriptor.digest}: its digest is ${digest}`);
    return bytes;
  }

  blob(descriptor: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return verified(this.#chunks(descriptor, signal), descriptor, this.name);
  }

  /** The bytes of a blob over as many connections as it takes. */
  async *#chunks({ digest, size }: Descriptor, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    let [at, since, faults] = [0, 0, 0];
    for (let breaks = 0; ; breaks++) {
      try {
        for await (const chunk of this.#range(digest, at, size, signal)) {
          at += chunk.length;
          yield chunk;
        }
        if (at >= size) return;
        throw new Error(`the answer ended after ${at} of ${size} bytes`);
      } catch (reason) {
        signal.throwIfAborted();
        if (reason instanceof BuildFailure && !(reason instanceof Busy)) throw reason;
        if (at - since >= progressBytes) faults = 0;
        if (faults >= mostRepetitions || breaks >= mostBreaks) throw describeFault(this.name, reason);
        await this.#requests.pause(faults, reason instanceof Busy ? reason.afterMs : 0, signal);
        faults++;
        since = at;
      }
    }
  }

  async *#range(digest: Digest, from: number, size: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const answer = await this.#request(`blobs/${digest}`, from === 0 ? {} : { range: `bytes=${from}-` }, signal);
    const { status, headers, body } = answer;
    try {
      let skip = from;
      if (status === 206) {
        if (from === 0 || !String(headers['content-range']).startsWith(`bytes ${from}-`)) throw new BuildFailure('image_pull_failed', `${answer.from} sent another part of ${digest} than it was asked for`);
        skip = 0;
      } else if (status !== 200) {
        throw await refusal(answer, digest);
      }
      const length = headers['content-length'];
      if (length !== undefined && Number(length) !== size - (from - skip)) throw new BuildFailure('image_pull_failed', `${answer.from} has ${String(length)} bytes for ${digest}, which has ${size - (from - skip)}`);
      for await (const chunk of body as AsyncIterable<Uint8Array>) {
        const rest = skip >= chunk.length ? null : chunk.subarray(skip);
        skip -= Math.min(skip, chunk.length);
        if (rest !== null) yield rest;
      }
    } finally {
      discard(body);
    }
  }

  #document(reference: string, signal: AbortSignal): Promise<Found> {
    return this.#requests.persistently(this.name, signal, async () => {
      const within = AbortSignal.any([signal, AbortSignal.timeout(longestDocumentMs)]);
      const answer = await this.#request(`manifests/${reference}`, { accept: [...indexTypes, ...imageTypes].join(', ') }, within);
      if (answer.status !== 200) throw await refusal(answer, reference);
      const bytes = await readBody(answer, mostManifestBytes, `the manifest from ${answer.from}`);
      const type = answer.headers['content-type'];
      return { digest: parseDigest(digestOf(bytes))!, bytes, mediaType: typeof type === 'string' ? type.split(';', 1)[0]!.trim() : null };
    });
  }

  /** Asks once, or twice when the first answer wanted a token. */
  async #request(path: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Answer> {
    const url = urlOf(this.#endpoint, `/v2/${this.#repository}/${path}`);
    const ask = (): Promise<Answer> => this.#requests.get(url, this.#authorization === null ? headers : { ...headers, authorization: this.#authorization }, signal);
    let answer = await ask();
    // Only the registry itself may ask for who we are.
    if (answer.status === 401 && answer.from === this.name) {
      discard(answer.body);
      this.#authorization = await this.#authorize(answer, signal);
      answer = await ask();
    }
    if (!Busy.is(answer)) return answer;
    discard(answer.body);
    throw new Busy(answer);
  }

  async #authorize({ headers, from }: Answer, signal: AbortSignal): Promise<string> {
    const header = headers['www-authenticate'];
    const challenges = parseChallenges([header ?? ''].flat().join(', '));
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    const basic = this.#login === null ? null : `Basic ${Buffer.from(`${this.#login.username}:${this.#login.password}`).toString('base64')}`;
    if (bearer === undefined) {
      if (!challenges.some(({ scheme }) => scheme === 'basic')) throw new BuildFailure('image_pull_failed', `${from} answered 401 and does not say how to log in`);
      if (basic === null) throw new BuildFailure('image_pull_failed', `${from} answered 401: it wants a login`);
      if (this.#authorization === basic) throw new BuildFailure('image_pull_failed', `${from} answered 401: it does not take this login`);
      return basic;
    }
    const { realm = '', service } = bearer.parameters;
    if (!URL.canParse(realm)) throw new BuildFailure('image_pull_failed', `${from} answered 401 and names nobody who gives tokens`);
    const url = new URL(realm);
    // Its own scope may ask for more than reading this repository.
    url.searchParams.set('scope', `repository:${this.#repository}:pull`);
    if (service !== undefined) url.searchParams.set('service', service);
    const within = AbortSignal.any([signal, AbortSignal.timeout(longestDocumentMs)]);
    const answer = await this.#requests.get(url, { accept: 'application/json', ...(basic === null ? {} : { authorization: basic }) }, within);
    if (Busy.is(answer)) {
      discard(answer.body);
      throw new Busy(answer);
    }
    if (answer.status !== 200) throw await refusal(answer, 'a token');
    const fault = (): BuildFailure => new BuildFailure('image_pull_failed', `${answer.from} gave no token`);
    const json = parseObject(await readBody(answer, mostTokenBytes, `the token from ${answer.from}`), fault);
    const token = json['token'] ?? json['access_token'];
    if (typeof token !== 'string' || !/^[\x21-\x7e]{1,32768}$/.test(token)) throw fault();
    return `Bearer ${token}`;
  }
}

async function readBody({ body }: Answer, most: number, what: string): Promise<Buffer> {
  try {
    return await collect(body as AsyncIterable<Uint8Array>, most, what);
  } finally {
    discard(body);
  }
}

/** What an answer other than 200 means to whoever asked for the image. */
async function refusal(answer: Answer, what: string): Promise<BuildFailure> {
  const { status, from } = answer;
  const said = await readBody(answer, mostErrorBytes, 'the answer').then(firstError, () => '');
  const meaning = status === 401 || status === 403 ? `it does not give this out${said === '' ? '' : `: ${said}`}; is the name right, and the login?` : status === 404 ? `it has no ${what}${said === '' ? '' : `: ${said}`}` : said;
  return new BuildFailure('image_pull_failed', `${from} answered ${status}${meaning === '' ? '' : `: ${meaning}`}`);
}

function firstError(bytes: Buffer): string {
  const json = parseObject(bytes, () => new Error('no JSON'));
  const [first] = Array.isArray(json['errors']) ? (json['errors'] as unknown[]) : [];
  const { code, message } = isObject(first) ? first : {};
  return [code, message].filter((part) => typeof part === 'string').join(', ').replace(/[^\x20-\x7e]/g, '?').slice(0, 200);
}
