import { type JsonString, jsonStrings } from './json-strings.ts';
import { longestToken } from './tokens.ts';

/** A line of an event stream, and what is to be changed in it. */
interface Line {
  text: string;
  readonly edits: { readonly start: number; readonly end: number; readonly text: string }[];
}

/** The beginning of a token at the end of a string, which may go on in the next event. */
interface Begun {
  readonly line: Line;
  /** Where the string ends in its line. */
  readonly at: number;
  readonly first: string;
  seen: string;
  /** What went on with it so far, to be taken away when it turns out to be a token. */
  readonly parts: { readonly line: Line; readonly start: number; readonly end: number }[];
}

const head = '[REDACTED_';
const whole = /^\[REDACTED_[A-Z_]{3,16}_[1-9]\d{0,8}\]/;
/** Lines of data that wait for the rest of a token at most, and bytes of one line that are looked at. */
const mostWaiting = 16;
const longestLine = 256 << 10;

/**
 * Models stream their answers in small events, and a token comes in several: `{"delta":"[REDACT"}`, `{"delta":"ED_EMAIL_1]"}`. Puts such a
 * token together in the first of them, where a `Rehydrator` finds it, and takes its rest out of the others. Events are held back only while
 * the same string of JSON, in the events that follow, can still make a token of what it ended with.
 */
export class TokenJoiner {
  #rest = '';
  #waiting: Line[] = [];
  #waitingData = 0;
  readonly #begun = new Map<string, Begun>();

  write(chunk: Buffer): Buffer {
    // A long line may come byte by byte: it is searched for its end once.
    if (this.#rest.length + chunk.length <= longestLine && !chunk.includes(0x0a)) {
      this.#rest += chunk.toString('latin1');
      return Buffer.alloc(0);
    }
    const text = this.#rest + chunk.toString('latin1');
    const out: string[] = [];
    let from = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', from)) {
      out.push(this.#line(text.slice(from, end + 1)));
      from = end + 1;
    }
    this.#rest = text.slice(from);
    if (this.#rest.length > longestLine) {
      out.push(this.#released(), this.#rest);
      this.#rest = '';
    }
    return Buffer.from(out.join(''), 'latin1');
  }

  end(): Buffer {
    const last = this.#rest === '' ? '' : this.#line(this.#rest);
    this.#rest = '';
    return Buffer.from(last + this.#released(), 'latin1');
  }

  #line(text: string): string {
    const line: Line = { text, edits: [] };
    this.#waiting.push(line);
    const lead = /^data:[ ]?/.exec(text)?.[0].length ?? -1;
    const strings = lead < 0 || !text.startsWith('{', lead) ? null : jsonStrings(text.slice(lead));
    if (strings !== null) {
      this.#waitingData++;
      for (const { path, start, end } of strings) this.#look(line, { path, start: start + lead, end: end + lead });
    }
    return this.#begun.size === 0 || this.#waitingData > mostWaiting ? this.#released() : '';
  }

  #look(line: Line, { path, start, end }: JsonString): void {
    const begun = this.#begun.get(path);
    const text = line.text.slice(start, end);
    let from = start;
    if (begun !== undefined) {
      const together = begun.seen + text.slice(0, longestToken);
      const token = whole.exec(together)?.[0];
      if (token === undefined && couldBegin(together)) {
        begun.seen = together;
        begun.parts.push({ line, start, end });
        return;
      }
      this.#begun.delete(path);
      if (token !== undefined) {
        from = start + token.length - begun.seen.length;
        begun.line.edits.push({ start: begun.at, end: begun.at, text: token.slice(begun.first.length) });
        for (const part of begun.parts) part.line.edits.push({ start: part.start, end: part.end, text: '' });
        line.edits.push({ start, end: from, text: '' });
      }
    }
    const open = line.text.lastIndexOf('[', end - 1);
    if (open < from || end - open > longestToken) return;
    const first = line.text.slice(open, end);
    if (couldBegin(first)) this.#begun.set(path, { line, at: end, first, seen: first, parts: [] });
  }

  #released(): string {
    const out = this.#waiting.map(({ text, edits }) => {
      let changed = text;
      for (const edit of edits.toSorted((a, b) => b.start - a.start || b.end - a.end)) changed = changed.slice(0, edit.start) + edit.text + changed.slice(edit.end);
      return changed;
    });
    this.#waiting = [];
    this.#waitingData = 0;
    this.#begun.clear();
    return out.join('');
  }
}

/** Whether more characters could make a token of this. */
function couldBegin(text: string): boolean {
  return text.length <= head.length ? head.startsWith(text) : text.startsWith(head) && text.length <= longestToken && /^[A-Z_0-9]*$/.test(text.slice(head.length));
}
