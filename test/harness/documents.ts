import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { repository } from './server.ts';

/** What a document tells its reader to type, and what it says will be printed. */
export interface Example {
  readonly document: string;
  readonly name: string;
  readonly steps: readonly { readonly language: string; readonly code: string }[];
  /** Texts that must appear in the output of the steps. */
  readonly outputs: readonly string[];
}

/**
 * The examples of README.md and docs/: every fenced block that follows a line `<!-- test: NAME -->`. Blocks of one name belong together, in
 * their order; one that follows `<!-- test: NAME output -->` says what they print.
 */
export function examples(): Example[] {
  const documents = ['README.md', ...readdirSync(join(repository, 'docs')).filter((name) => name.endsWith('.md')).map((name) => join('docs', name))];
  return documents.map((name) => join(repository, name)).filter((file) => existsSync(file)).flatMap(examplesOf);
}

function examplesOf(file: string): Example[] {
  const found = new Map<string, { steps: { language: string; code: string }[]; outputs: string[] }>();
  for (const [, name = '', output, language = '', code = ''] of readFileSync(file, 'utf8').matchAll(/^<!-- test: (\S+)( output)? -->\s*^```(\w*)\n(.*?)^```$/gms)) {
    const example = found.get(name) ?? { steps: [], outputs: [] };
    found.set(name, example);
    if (output === undefined) example.steps.push({ language, code });
    else example.outputs.push(code);
  }
  return [...found].map(([name, example]) => ({ document: relative(repository, file), name, ...example }));
}

/** The first code block below a heading. */
export function firstBlockBelow(markdown: string, heading: string): string {
  const below = markdown.slice(markdown.indexOf(`\n## ${heading}\n`));
  const code = /^```\w*\n(.*?)^```$/ms.exec(below)?.[1];
  if (code === undefined || !markdown.includes(`\n## ${heading}\n`)) throw new Error(`there is no code below "${heading}"`);
  return code;
}
