import { PaddockError } from '../errors.ts';
import { BuildFailure } from './build-host.ts';
import type { Step } from './spec.ts';
import { resolveWord } from './words.ts';

/** What a Dockerfile says, in the words of a spec. */
export interface ParsedDockerfile {
  readonly from: string;
  readonly steps: readonly Step[];
  /** What was read and has no effect here, a line each, for the log. */
  readonly notes: readonly string[];
}

export const longestDockerfile = 64 * 1024;

interface Instruction {
  readonly line: number;
  readonly word: string;
  readonly rest: string;
}

/**
 * Reads a Dockerfile of one stage whose files all come from its image and its RUN lines (https://docs.docker.com/reference/dockerfile/).
 * Throws `invalid_argument` with the number of the line for everything else.
 */
export function parseDockerfile(text: string, field = 'dockerfile'): ParsedDockerfile {
  const bytes = Buffer.byteLength(text);
  if (bytes > longestDockerfile) throw new PaddockError('invalid_argument', `${field} takes ${bytes} bytes; the limit is ${longestDockerfile}`, { field });
  if (text.includes('\0')) throw new PaddockError('invalid_argument', `${field} holds a NUL character`, { field });
  return new Reader(field).read(instructionsOf(text, field));
}

/** Lines joined where they end in the escape character; comments and empty lines left out, also between joined ones. */
function instructionsOf(text: string, field: string): Instruction[] {
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/);
  const instructions: Instruction[] = [];
  let escape = '\\';
  let directives = true;
  let parts: string[] = [];
  let start = 0;
  const finish = (): void => {
    const [, word = '', rest = ''] = /^\s*([A-Za-z]+)\s*([^]*)$/.exec(parts.join('')) ?? [];
    if (word === '') throw at(start, field, `an instruction must begin with a word such as RUN, not ${shown(parts.join('').trim())}`);
    instructions.push({ line: start, word: word.toUpperCase(), rest: rest.trimEnd() });
    parts = [];
  };
  for (const [index, line] of lines.entries()) {
    const trimmed = line.trim();
    if (directives) {
      const directive = /^#\s*([a-z]+)\s*=\s*(\S+)\s*$/i.exec(trimmed);
      if (directive === null) directives = false;
      else if (directive[1]!.toLowerCase() === 'escape') {
        if (directive[2] !== '\\' && directive[2] !== '`') throw at(index + 1, field, 'the escape character must be \\ or `');
        escape = directive[2]!;
        continue;
      }
    }
    if (trimmed.startsWith('#') || (trimmed === '' && parts.length > 0)) continue;
    if (trimmed === '') continue;
    if (parts.length === 0) start = index + 1;
    const end = line.trimEnd();
    if (end.endsWith(escape)) {
      parts.push(end.slice(0, -1));
      continue;
    }
    parts.push(line);
    finish();
  }
  if (parts.length > 0) finish();
  return instructions;
}

class Reader {
  readonly #field: string;
  readonly #steps: Step[] = [];
  readonly #notes: string[] = [];
  /** Those before FROM, for FROM; one that is named again without a value has it below too. */
  readonly #globals = new Map<string, string>();
  #from: string | null = null;
  #shell: readonly string[] | null = null;

  constructor(field: string) {
    this.#field = field;
  }

  read(instructions: readonly Instruction[]): ParsedDockerfile {
    for (const instruction of instructions) this.#take(instruction);
    if (this.#from === null) throw new PaddockError('invalid_argument', `${this.#field} must contain FROM`, { field: this.#field });
    return { from: this.#from, steps: this.#steps, notes: this.#notes };
  }

  #take(instruction: Instruction): void {
    const { line, word, rest } = instruction;
    if (this.#from === null && word !== 'FROM' && word !== 'ARG') throw at(line, this.#field, `${word} comes before FROM; only ARG may`);
    if (rest === '') throw at(line, this.#field, `${word} needs an argument`);
    switch (word) {
      case 'FROM':
        return this.#takeFrom(line, rest);
      case 'ARG':
        for (const each of words(rest)) this.#takeArg(line, each);
        return;
      case 'ENV':
        return this.#takeEnv(line, rest);
      case 'RUN':
        this.#steps.push({ kind: 'run', command: this.#command(line, rest) });
        return;
      case 'WORKDIR':
        this.#steps.push({ kind: 'workdir', path: rest, word: true });
        return;
      case 'USER':
        this.#steps.push({ kind: 'user', name: rest, sudo: false, word: true });
        return;
      case 'SHELL':
        this.#shell = execForm(rest);
        if (this.#shell === null || this.#shell.length === 0) throw at(line, this.#field, 'SHELL must be a list such as ["/bin/bash", "-c"]');
        return;
      case 'COPY':
      case 'ADD':
        throw at(line, this.#field, `${word} cannot be used: files are not sent with a build. Fetch them in a RUN line, or write them to a sandbox and take a snapshot`);
      case 'ONBUILD':
        throw at(line, this.#field, 'ONBUILD cannot be used: nothing is kept for the builds of others');
      case 'CMD':
      case 'ENTRYPOINT':
        this.#notes.push(`line ${line}: ${word} is not started: give start_cmd for what a sandbox should run from the beginning`);
        return;
      case 'EXPOSE':
        this.#notes.push(`line ${line}: EXPOSE says nothing here: every port of a sandbox can be reached, as its rules allow`);
        return;
      case 'HEALTHCHECK':
        this.#notes.push(`line ${line}: HEALTHCHECK is not run: give ready_cmd to wait for a start command`);
        return;
      case 'VOLUME':
        this.#notes.push(`line ${line}: VOLUME makes no volume: the directory is part of the sandbox's disk`);
        return;
      case 'LABEL':
      case 'MAINTAINER':
      case 'STOPSIGNAL':
        this.#notes.push(`line ${line}: ${word} has no effect here`);
        return;
      default:
        throw at(line, this.#field, `${word} is not an instruction of a Dockerfile`);
    }
  }

  #takeFrom(line: number, rest: string): void {
    if (this.#from !== null) throw at(line, this.#field, 'a second FROM (a multi-stage build) cannot be used: give one stage, with a template for what comes before');
    const [image = '', ...more] = rest.split(/\s+/).filter((each) => !each.startsWith('--platform='));
    if (image.startsWith('--')) throw at(line, this.#field, `FROM has the option ${shown(image)}, which is not understood`);
    if (more.length > 0 && !(more.length === 2 && more[0]!.toLowerCase() === 'as')) throw at(line, this.#field, 'FROM must be an image, and may have AS and a name behind it');
    const from = this.#resolved(line, image, (name) => this.#globals.get(name));
    if (from === '') throw at(line, this.#field, 'FROM is empty once its variables are put in');
    this.#from = from;
  }

  #takeArg(line: number, word: string): void {
    const [key, value] = cut(word, '=');
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(key)) throw at(line, this.#field, `ARG has the name ${shown(key)}`);
    if (this.#from === null) this.#globals.set(key, value === null ? '' : this.#resolved(line, value, (name) => this.#globals.get(name)));
    else if (value !== null) this.#steps.push({ kind: 'arg', key, value, word: true });
    else if (this.#globals.has(key)) this.#steps.push({ kind: 'arg', key, value: this.#globals.get(key)! });
    else this.#notes.push(`line ${line}: ARG ${key} has no value: it is not set`);
  }

  #takeEnv(line: number, rest: string): void {
    const all = words(rest);
    const pairs: (readonly [string, string | null])[] = all[0]!.includes('=') ? all.map((each) => cut(each, '=')) : [[all[0]!, rest.slice(all[0]!.length).trim() || null]];
    for (const [index, [key, value]] of pairs.entries()) {
      if (value === null) throw at(line, this.#field, `ENV needs a value for ${shown(key)}`);
      if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(key)) throw at(line, this.#field, `ENV has the name ${shown(key)}`);
      this.#steps.push({ kind: 'env', key, value, word: true, ...(index === 0 ? {} : { same: true }) });
    }
  }

  /** As a line for /bin/sh. */
  #command(line: number, rest: string): string {
    if (rest.startsWith('--')) throw at(line, this.#field, `RUN has the option ${shown(rest.split(/\s/)[0]!)}, which cannot be used: there are no mounts, networks or secrets of a builder here`);
    // `<<` with a word behind it; a here-string has three, and 1<<2 is arithmetic.
    if (/(^|[^<\w])<<-?\s*["']?[A-Za-z_]/.test(rest)) throw at(line, this.#field, 'RUN has a here-document (<<), which cannot be used: write several RUN lines, or one with &&');
    const argv = execForm(rest);
    if (argv !== null && argv.length === 0) throw at(line, this.#field, 'RUN has an empty list');
    if (argv !== null) return argv.map(quoted).join(' ');
    return this.#shell === null ? rest : `exec ${[...this.#shell, rest].map(quoted).join(' ')}`;
  }

  #resolved(line: number, word: string, lookup: (name: string) => string | undefined): string {
    try {
      return resolveWord(word, lookup);
    } catch (error) {
      if (error instanceof BuildFailure) throw at(line, this.#field, error.message);
      throw error;
    }
  }
}

/** Words as Docker splits them: at blanks outside quotes; quotes and escapes stay in the words. */
export function words(text: string): string[] {
  const found: string[] = [];
  let start = -1;
  let quote = '';
  for (let i = 0; i < text.length; i++) {
    const character = text[i]!;
    const blank = /\s/.test(character);
    if (start < 0 && !blank) start = i;
    if (character === '\\' && quote !== "'") i++;
    else if (quote !== '') quote = character === quote ? '' : quote;
    else if (character === '"' || character === "'") quote = character;
    else if (blank && start >= 0) {
      found.push(text.slice(start, i));
      start = -1;
    }
  }
  if (start >= 0) found.push(text.slice(start));
  return found;
}

/** A list of JSON strings; null when it is none, and so a line for the shell. */
function execForm(text: string): readonly string[] | null {
  if (!text.startsWith('[')) return null;
  try {
    const list: unknown = JSON.parse(text);
    return Array.isArray(list) && list.every((each) => typeof each === 'string') ? list : null;
  } catch {
    return null; // a test in brackets, for example
  }
}

function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function cut(text: string, separator: string): readonly [string, string | null] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + 1)];
}

function at(line: number, field: string, what: string): PaddockError {
  return new PaddockError('invalid_argument', `${field} line ${line}: ${what}`, { field });
}

function shown(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}
