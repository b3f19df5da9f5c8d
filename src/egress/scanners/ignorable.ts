/** Whether a character is not shown by itself (Unicode's `Default_Ignorable_Code_Point`, with what marks directions). */
export function ignorable(code: number): boolean {
  if (code < 0x34f) return code === 0xad;
  if (code < 0x2000) return code === 0x34f || code === 0x61c || code === 0x115f || code === 0x1160 || code === 0x17b4 || code === 0x17b5 || (code >= 0x180b && code <= 0x180f);
  if (code < 0x3164) return (code >= 0x200b && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f);
  if (code < 0xfe00) return code === 0x3164;
  if (code < 0x10000) return code <= 0xfe0f || code === 0xfeff || code === 0xffa0 || (code >= 0xfff0 && code <= 0xfffb);
  return (code >= 0xe0000 && code <= 0xe0fff) || (code >= 0x1bca0 && code <= 0x1bca3) || (code >= 0x1d173 && code <= 0x1d17a);
}
