import { codeRules, type Language, languageMarks } from './code-rules.ts';
import { combined, type Score, type Scorer } from './scorer.ts';

export interface CodeSecurityOptions {
  /** Names as users write them, letters of either case: `python`, `js`, `bash`. */
  readonly excludedLanguages?: readonly string[];
  readonly detectSuspiciousImports?: boolean;
}

const aliases: ReadonlyMap<string, Language> = new Map([['py', 'python'], ['js', 'javascript'], ['ts', 'javascript'], ['typescript', 'javascript'], ['node', 'javascript'], ['jsx', 'javascript'], ['tsx', 'javascript'], ['bash', 'shell'], ['sh', 'shell'], ['zsh', 'shell'], ['rb', 'ruby'], ['golang', 'go'], ['c++', 'c'], ['cpp', 'c'], ['ps1', 'powershell'], ['pwsh', 'powershell']]);
const known: ReadonlySet<string> = new Set(languageMarks.map(([language]) => language));
/** A line is looked at in pieces of this size: rules reach less far. */
const longestLine = 1024;
const lineOverlap = 512;

/** The language that a user means; null for one that no rule knows. */
export function languageNamed(name: string): Language | null {
  const lower = name.toLowerCase();
  return known.has(lower) ? (lower as Language) : (aliases.get(lower) ?? null);
}

/** Languages that a text seems to be written in, likeliest first; none for prose. */
export function languagesOf(text: string): Language[] {
  const sample = text.slice(0, 16 << 10);
  const marks = new Map<Language, number>();
  for (const [language, mark, weight] of languageMarks) if (mark.test(sample)) marks.set(language, (marks.get(language) ?? 0) + weight);
  return [...marks].filter(([, weight]) => weight >= 2).sort((a, b) => b[1] - a[1]).map(([language]) => language);
}

/**
 * Judges how dangerous code in a text is, by rules about single lines: shells that connect back, downloads that are run, code made of input,
 * commands and queries put together from strings, secrets in the source, and so on. It does not follow data through a program, so that what
 * is spread over lines or hidden behind names passes.
 */
export class RuleCodeSecurity implements Scorer {
  readonly #excluded: ReadonlySet<Language>;
  readonly #imports: boolean;

  constructor({ excludedLanguages = [], detectSuspiciousImports = true }: CodeSecurityOptions = {}) {
    this.#excluded = new Set(excludedLanguages.map(languageNamed).filter((language) => language !== null));
    this.#imports = detectSuspiciousImports;
  }

  score(text: string): Score {
    const languages = languagesOf(text);
    // Code in an excluded language is not judged, unless it seems to be in another one as much.
    if (languages.length > 0 && languages.every((language) => this.#excluded.has(language))) return { score: 0, label: null };
    const found = new Map<string, number>();
    for (const line of lines(text)) {
      for (const { name, weight, languages: only, pattern, suspicious } of codeRules) {
        if ((found.get(name) ?? 0) >= weight || (suspicious === true && !this.#imports)) continue;
        if (only !== null && !only.some((language) => languages.includes(language) && !this.#excluded.has(language))) continue;
        if (pattern.test(line)) found.set(name, weight);
      }
    }
    return combined([...found].map(([label, weight]) => ({ label, weight })));
  }
}

/** Lines without those that are comments, long ones in pieces. */
function* lines(text: string): Iterable<string> {
  for (const line of text.split(/\r?\n/)) {
    if (line.length < 4 || /^\s{0,200}(?:#(?!!|include)|\/\/|--\s|\*\s)/.test(line.slice(0, 210))) continue;
    for (let from = 0; from === 0 || from + lineOverlap < line.length; from += longestLine - lineOverlap) yield line.slice(from, from + longestLine);
  }
}
