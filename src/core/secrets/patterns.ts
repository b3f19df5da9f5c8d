/** One element of a regular expression with its quantifier. */
interface Element {
  readonly text: string;
  readonly quantifier: string;
  /** The character that it stands for; null when it may be several. */
  readonly literal: string | null;
}

/** The alternatives of a pattern at its top, anchors and a group around all of it taken away. Null when its parts cannot be told. */
export function splitAlternatives(pattern: string): readonly string[] | null {
  if (pattern.includes('\\Q')) return null;
  const bare = withoutAnchors(pattern);
  const elements = elementsOf(bare);
  const [only] = elements;
  if (elements.length === 1 && only !== undefined && only.quantifier === '' && only.text.startsWith('(')) {
    const inner = innerOf(only.text);
    if (inner !== null) return splitAlternatives(inner);
  }
  const alternatives: string[] = [''];
  for (const { text, quantifier } of elements) {
    if (text === '|') alternatives.push('');
    else alternatives[alternatives.length - 1] += text + quantifier;
  }
  return alternatives;
}

export function withoutAnchors(pattern: string): string {
  return pattern.replace(/^\(\?i\)/, '').replace(/^\^/, '').replace(/(?<!\\)((?:\\\\)*)\$$/, '$1');
}

/** How every text ends that a pattern matches. */
export interface LiteralEnd {
  /** The pattern of what comes before; empty when the whole is literal. */
  readonly before: string;
  readonly literal: string;
  /** What comes before ends in a dot, or is empty. */
  readonly separated: boolean;
}

export function literalEnd(pattern: string): LiteralEnd {
  const elements = elementsOf(pattern);
  let start = elements.length;
  let literal = '';
  for (; start > 0; start--) {
    const { literal: character, text, quantifier } = elements[start - 1]!;
    if (quantifier !== '') break;
    // People forget to escape it, and a host of any other name is then somebody else's.
    const forgotten = text === '.' && /^[a-z0-9]/i.test(literal);
    if (character === null && !forgotten) break;
    literal = (forgotten ? '.' : character) + literal;
  }
  const before = elements.slice(0, start);
  return { before: before.map(({ text, quantifier }) => text + quantifier).join(''), literal, separated: endsInDot(before.at(-1)) };
}

/** A group such as `(.*\.)?`, whose every text ends in a dot. */
function endsInDot(element: Element | undefined): boolean {
  const inner = element?.text.startsWith('(') === true ? innerOf(element.text) : null;
  if (inner === null) return false;
  const inside = elementsOf(inner);
  return inside.every(({ text }) => text !== '|') && inside.at(-1)?.literal === '.' && inside.at(-1)?.quantifier === '';
}

/** What is in the parentheses; null for a group that only sets flags. */
function innerOf(group: string): string | null {
  const open = /^\((?:\?(?:[imsU-]*:|P?<\w+>))?/.exec(group)![0];
  return open === '(' && group.startsWith('(?') ? null : group.slice(open.length, -1);
}

/** Of a pattern that the engine has taken: brackets and parentheses close, and nothing is quoted with \Q. */
function elementsOf(pattern: string): readonly Element[] {
  const elements: Element[] = [];
  for (let i = 0; i < pattern.length; ) {
    const end = endOfElement(pattern, i);
    const text = pattern.slice(i, end);
    const quantifier = /^(?:[*+?]|\{\d+(?:,\d*)?\})\??/.exec(pattern.slice(end))?.[0] ?? '';
    elements.push({ text, quantifier, literal: literalOf(text) });
    i = end + quantifier.length;
  }
  return elements;
}

function literalOf(text: string): string | null {
  if (/^[A-Za-z0-9_-]$/.test(text)) return text;
  return /^\\[.\-_]$/.test(text) ? text[1]! : null;
}

function endOfElement(pattern: string, start: number): number {
  switch (pattern[start]) {
    case '\\':
      return start + (/^\\(?:[pP]\{[^}]*\}|[pP].|x\{[^}]*\}|x..|[0-7]{1,3}|.)/s.exec(pattern.slice(start))?.[0].length ?? 1);
    case '[':
      return endOfClass(pattern, start);
    case '(':
      return endOfGroup(pattern, start);
    default:
      return start + 1;
  }
}

/** A `]` in front belongs to the class, and so do the classes within, `[[:alpha:]]`. */
function endOfClass(pattern: string, start: number): number {
  let i = start + 1;
  if (pattern[i] === '^') i++;
  if (pattern[i] === ']') i++;
  while (i < pattern.length && pattern[i] !== ']') {
    const named = pattern.startsWith('[:', i) ? pattern.indexOf(':]', i) : -1;
    i = named >= 0 ? named + 2 : pattern[i] === '\\' ? i + 2 : i + 1;
  }
  return i + 1;
}

function endOfGroup(pattern: string, start: number): number {
  let i = start + 1;
  while (i < pattern.length && pattern[i] !== ')') i = endOfElement(pattern, i);
  return i + 1;
}
