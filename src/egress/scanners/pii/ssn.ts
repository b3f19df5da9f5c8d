import { isDigit, isWord, textBefore } from './characters.ts';
import type { DigitRuns } from './digits.ts';
import type { Hit } from './types.ts';

const cue = /(?:\b|_)(?:ssn|s\.s\.n|social[ _-]?security|soc[ ._-]?sec)/;
/** What a number in groups of 3, 2 and 4 is instead. */
const otherwise = /(?:version|release|\bver|\bv|part (?:no|number)|part)[ .:#-]{0,3}$/;

/**
 * US social security numbers: area, group and serial with the same separator between them, or nine digits after a word that says so.
 * Areas 000, 666 and from 900, group 00 and serial 0000 are never given out.
 */
export function findSsns(runs: DigitRuns, found: (hit: Hit) => void): void {
  for (let run = 0; run < runs.count; run++) {
    const length = runs.length(run);
    if (length === 3 && grouped(runs, run)) found({ type: 'ssn', start: runs.start(run), end: runs.end(run + 2) });
    else if (length === 9 && whole(runs, run)) found({ type: 'ssn', start: runs.start(run), end: runs.end(run) });
  }
}

function grouped(runs: DigitRuns, run: number): boolean {
  const separator = runs.gap(run);
  if (separator !== '-' && separator !== ' ' && separator !== '.') return false;
  if (runs.gap(run + 1) !== separator || runs.length(run + 1) !== 2 || runs.length(run + 2) !== 4) return false;
  const { text } = runs;
  const [start, end] = [runs.start(run), runs.end(run + 2)];
  if (!givenOut(runs.digits(run, run + 2)) || !standsAlone(text, start, end)) return false;
  if (separator === ' ' && (runs.gap(run - 1) === ' ' || runs.gap(run + 2) === ' ')) return cue.test(textBefore(text, start, 40));
  return !otherwise.test(textBefore(text, start, 16));
}

function whole(runs: DigitRuns, run: number): boolean {
  const [start, end] = [runs.start(run), runs.end(run)];
  return givenOut(runs.digits(run, run)) && standsAlone(runs.text, start, end) && cue.test(textBefore(runs.text, start, 40));
}

function givenOut(digits: string): boolean {
  const area = Number(digits.slice(0, 3));
  return area > 0 && area !== 666 && area < 900 && digits.slice(3, 5) !== '00' && digits.slice(5) !== '0000';
}

/** Not a piece of a longer number or name. */
function standsAlone(text: string, start: number, end: number): boolean {
  const [before, after] = [text.charCodeAt(start - 1), text.charCodeAt(end)];
  if (isWord(before) || before === 0x5f || isWord(after) || after === 0x5f) return false;
  if (joins(before) && isWord(text.charCodeAt(start - 2))) return false;
  return !(after === 0x2d && isWord(text.charCodeAt(end + 1))) && !(joins(after) && isDigit(text.charCodeAt(end + 1)));
}

/** `-`, `.`, `/`, `,` and `+` between two words make them one. */
function joins(unit: number): boolean {
  return unit === 0x2d || unit === 0x2e || unit === 0x2f || unit === 0x2b;
}
