import type { SecretBinding, SecretRule, SecretUse } from '../../core/network/inspection.ts';
import { canonicalPath, isBelow } from './canonical-path.ts';
import { codingsOf, readableOnly } from './content-coding.ts';
import { ruleFor, type GuestSecrets } from './guest-secrets.ts';
import { holdsStandIn, withValue } from './secret-places.ts';
import { type BodyFilter, Refusal, type RequestHead, type ResponseHead, type Stage } from './stage.ts';

interface Use {
  outcome: SecretUse['outcome'];
  code: string | null;
  removed: number;
}

/** Puts real credentials where the rules say, refuses stand-ins anywhere else, and takes the credentials out of what comes back. */
export class SecretsStage implements Stage {
  readonly #secrets: GuestSecrets;
  readonly #uses = new Map<SecretBinding, Use>();
  #host = '';
  /** Whether real values may be in what comes back. */
  #watched = false;

  constructor(secrets: GuestSecrets) {
    this.#secrets = secrets;
  }

  get uses(): readonly SecretUse[] {
    return [...this.#uses].map(([{ id }, { outcome, code, removed }]) => ({ bindingId: id, outcome, code, removedFromResponse: removed }));
  }

  /** As much of a path as a log may hold. */
  loggable(target: string): string {
    const { standIns, values } = this.#secrets;
    const path = values.replaceIn(standIns.replaceIn(target.split('?', 1)[0]!));
    // Escapes of escapes are not worth keeping.
    return standIns.ownerIn(path) === null && values.ownerIn(path) === null ? path.slice(0, 512) : '/[redacted]';
  }

  request(head: RequestHead): RequestHead {
    this.#host = head.host;
    let changed = head;
    for (const binding of this.#secrets.bindings) {
      const rule = ruleFor(binding, head.host);
      if (rule !== null) changed = head.scheme === 'https' ? this.#place(binding, rule, changed) : this.#keepPlain(binding, rule, changed);
    }
    this.#assertClean(changed.target, changed.headers, changed.scheme);
    this.#watched = !this.#secrets.values.empty && this.#secrets.concerns(head.host);
    return this.#watched ? { ...changed, headers: readableOnly(changed.headers) } : changed;
  }

  requestBody(head: RequestHead): BodyFilter | null {
    return this.#secrets.standIns.empty ? null : this.#secrets.standIns.searcher((binding) => this.#refuseElsewhere(binding, head.scheme, 'the body'));
  }

  requestTrailers(trailers: readonly string[]): readonly string[] {
    this.#assertClean('', trailers, 'https');
    return trailers;
  }

  response(head: ResponseHead): ResponseHead {
    if (!this.#watched) return head;
    // A piece of something packed cannot be unpacked.
    if (head.status === 206 && packed(head)) throw unreadable('is a part of a packed body');
    return this.#cleaned(head);
  }

  responseBody(): BodyFilter | null {
    return this.#watched ? this.#secrets.values.replacer((binding) => this.#countRemoved(binding)) : null;
  }

  responseTrailers(trailers: readonly string[]): readonly string[] {
    return this.#watched ? trailers.map((text) => this.#clean(text)) : trailers;
  }

  upgraded(head: ResponseHead): ResponseHead {
    if (!this.#watched) return head;
    if (packed(head)) throw unreadable('is packed, though it answers an upgrade');
    return this.#cleaned(head);
  }

  /** Nothing can be taken out of what is not HTTP any more; so the connection ends before the value arrives. */
  upgradedBytes(): BodyFilter | null {
    if (!this.#watched) return null;
    return this.#secrets.values.searcher((binding) => {
      this.#countRemoved(binding);
      throw new Refusal(502, 'credential_in_answer', `The server sent ${binding.secretName} back.`, 'failed');
    });
  }

  #place(binding: SecretBinding, rule: SecretRule, head: RequestHead): RequestHead {
    if (rule.when === 'stand-in' && !holdsStandIn(rule, head, binding.standIn)) return head;
    const path = rule.paths.length === 0 ? null : canonicalPath(head.target);
    if (rule.paths.length > 0 && path === null) throw this.#refused(binding, 400, 'ambiguous_path', `The path can be read in several ways, and ${binding.secretName} is for certain paths only.`);
    const fits = (rule.methods.length === 0 || rule.methods.includes(head.method)) && (path === null || rule.paths.some((prefix) => isBelow(path, prefix)));
    if (!fits && rule.when === 'stand-in') throw this.#refused(binding, 403, 'credential_scope_mismatch', `${binding.secretName} is not for ${head.method} requests to this path of ${head.host}.`);
    if (!fits) {
      this.#uses.set(binding, { outcome: 'unused', code: 'credential_scope_mismatch', removed: 0 });
      return head;
    }
    if (binding.value === null) throw this.#refused(binding, 503, 'credential_revoked', `${binding.secretName} was deleted or taken away from this sandbox.`);
    this.#uses.set(binding, { outcome: 'injected', code: null, removed: 0 });
    // What was judged is what is sent.
    const target = path === null ? head.target : path + head.target.slice(head.target.split('?', 1)[0]!.length);
    return withValue(rule, { ...head, target }, binding.value);
  }

  /** Nothing is put into what everybody on the way can read. */
  #keepPlain(binding: SecretBinding, rule: SecretRule, head: RequestHead): RequestHead {
    if (rule.when === 'stand-in') return head; // found below
    const marked = head.headers.some((text, i) => i % 2 === 1 && text.includes(binding.standIn));
    if (marked) throw this.#refused(binding, 403, 'plain_http', plainReason(binding, head.host));
    this.#uses.set(binding, { outcome: 'unused', code: 'plain_http', removed: 0 });
    return head;
  }

  #assertClean(target: string, headers: readonly string[], scheme: RequestHead['scheme']): void {
    if (this.#secrets.standIns.empty) return;
    const inTarget = this.#secrets.standIns.ownerIn(target);
    if (inTarget !== null) this.#refuseElsewhere(inTarget, scheme, 'the path or query');
    for (let i = 0; i < headers.length; i += 2) {
      const found = this.#secrets.standIns.ownerIn(headers[i + 1]!) ?? this.#secrets.standIns.ownerIn(headers[i]!);
      if (found !== null) this.#refuseElsewhere(found, scheme, `the header ${this.#secrets.standIns.replaceIn(headers[i]!)}`);
    }
  }

  #refuseElsewhere(binding: SecretBinding, scheme: RequestHead['scheme'], where: string): never {
    const rule = ruleFor(binding, this.#host);
    if (rule === null) throw this.#refused(binding, 403, 'credential_host_mismatch', `The stand-in for ${binding.secretName} was sent to ${this.#host}, which is not one of its hosts.`);
    if (scheme === 'http') throw this.#refused(binding, 403, 'plain_http', plainReason(binding, this.#host));
    throw this.#refused(binding, 403, 'credential_misplaced', `The stand-in for ${binding.secretName} is in ${where}; for ${this.#host} it belongs ${placeOf(rule)}.`);
  }

  #refused(binding: SecretBinding, status: number, code: string, reason: string): Refusal {
    this.#uses.set(binding, { outcome: 'refused', code, removed: this.#uses.get(binding)?.removed ?? 0 });
    return new Refusal(status, code, reason);
  }

  #cleaned(head: ResponseHead): ResponseHead {
    return { ...head, reason: this.#clean(head.reason), headers: head.headers.map((text) => this.#clean(text)) };
  }

  #clean(text: string): string {
    return this.#secrets.values.replaceIn(text, (binding) => this.#countRemoved(binding));
  }

  #countRemoved(binding: SecretBinding): void {
    const use = this.#uses.get(binding) ?? { outcome: 'unused', code: null, removed: 0 };
    this.#uses.set(binding, { ...use, removed: use.removed + 1 });
  }
}

function packed({ headers }: ResponseHead): boolean {
  return headers.some((text, i) => i % 2 === 1 && headers[i - 1]!.toLowerCase() === 'content-encoding' && codingsOf(text).length > 0);
}

function unreadable(why: string): Refusal {
  return new Refusal(502, 'unreadable_response', `The answer ${why}, so it cannot be searched for the secrets of this host.`, 'failed');
}

function plainReason(binding: SecretBinding, host: string): string {
  return `${binding.secretName} is put only into requests over https, and this one to ${host} is not.`;
}

function placeOf({ place }: SecretRule): string {
  switch (place.kind) {
    case 'bearer':
      return 'in the header Authorization, behind Bearer';
    case 'basic':
      return 'in the header Authorization, as the password of Basic';
    case 'header':
      return `in the header ${place.name}${place.prefix === '' ? '' : `, behind ${place.prefix.trim()}`}`;
    case 'headers':
      return `in the headers ${Object.keys(place.headers).join(', ')}`;
    case 'query':
      return `in the query, as ${place.name}`;
  }
}
