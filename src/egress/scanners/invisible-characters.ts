import { ignorable } from './ignorable.ts';

export type InvisibleKind = 'tag' | 'zero_width' | 'bidi' | 'variation_selector' | 'other';

/** What kind of invisible character this is; null for one that is seen. */
export function invisibleKind(code: number): InvisibleKind | null {
  if (!ignorable(code)) return null;
  if (code >= 0xe0000 && code <= 0xe007f) return 'tag';
  if ((code >= 0xfe00 && code <= 0xfe0f) || (code >= 0xe0100 && code <= 0xe01ef) || (code >= 0x180b && code <= 0x180d) || code === 0x180f) return 'variation_selector';
  if (code === 0x61c || code === 0x200e || code === 0x200f || (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069)) return 'bidi';
  if (code === 0xad || code === 0x34f || code === 0x180e || (code >= 0x200b && code <= 0x200d) || (code >= 0x2060 && code <= 0x2064) || code === 0xfeff) return 'zero_width';
  return 'other';
}

/** Scripts in which joiners decide how letters look: Arabic, Syriac, Mongolian and those of India and its neighbours. */
export function joins(code: number): boolean {
  return (code >= 0x600 && code < 0x860) || (code >= 0x8a0 && code < 0xe00) || (code >= 0xf00 && code < 0x10a0) || (code >= 0x1780 && code < 0x18b0 && invisibleKind(code) === null) || (code >= 0xfb50 && code < 0xfdff) || (code >= 0xfe70 && code < 0xfeff) || (code >= 0x11000 && code < 0x11d00);
}

/** Hebrew, Arabic and other scripts that are written from right to left. */
export function isRightToLeft(code: number): boolean {
  return (code >= 0x590 && code < 0x8ff && code !== 0x61c) || (code >= 0xfb1d && code < 0xfdff) || (code >= 0xfe70 && code < 0xfeff) || (code >= 0x10800 && code < 0x11000) || (code >= 0x1e800 && code < 0x1f000);
}

export function isPictographic(code: number): boolean {
  return code > 0xa8 && /^\p{Extended_Pictographic}$/u.test(String.fromCodePoint(code));
}

/** Skin tones, hair, and the selector for the coloured form: what may stand between a picture and a joiner. */
export function isPictureModifier(code: number): boolean {
  return code === 0xfe0f || (code >= 0x1f3fb && code <= 0x1f3ff) || code === 0x20e3;
}

export function isIdeograph(code: number): boolean {
  return (code >= 0x3400 && code < 0xa000) || (code >= 0xf900 && code < 0xfb00) || (code >= 0x20000 && code < 0x32000);
}
