export function isDigit(unit: number): boolean {
  return unit >= 0x30 && unit <= 0x39;
}

export function isAsciiLetter(unit: number): boolean {
  const lower = unit | 0x20;
  return lower >= 0x61 && lower <= 0x7a;
}

/** Letters and digits of ASCII, and whatever lies beyond it. False at the end of a text (NaN). */
export function isWord(unit: number): boolean {
  return isDigit(unit) || isAsciiLetter(unit) || unit >= 0x80;
}

export function isUpper(unit: number): boolean {
  if (unit < 0x80) return unit >= 0x41 && unit <= 0x5a;
  if (unit < 0xc0 || !(unit <= 0xffff)) return false;
  const char = String.fromCharCode(unit);
  return char !== char.toLowerCase();
}

export function isLetter(unit: number): boolean {
  if (unit < 0x80) return isAsciiLetter(unit);
  if (!(unit <= 0xffff)) return false;
  const char = String.fromCharCode(unit);
  return char.toLowerCase() !== char.toUpperCase();
}

/** What stands before a place, in small letters. */
export function textBefore(text: string, at: number, length: number): string {
  return text.slice(Math.max(0, at - length), at).toLowerCase();
}
