/** A credential that says whose it is: what it begins with, which characters follow, and how many. */
export interface KeyFormat {
  readonly prefix: string;
  readonly alphabet: 'alnum' | 'hex' | 'url' | 'upper' | 'dotted';
  readonly shortest: number;
  readonly longest: number;
}

const most = 1024;
const list: readonly (readonly [prefix: string, alphabet: KeyFormat['alphabet'], shortest: number, longest: number])[] = [
  ['sk-ant-', 'url', 20, most], ['sk-proj-', 'url', 20, most], ['sk-svcacct-', 'url', 20, most], ['sk-admin-', 'url', 20, most], ['sk-or-v1-', 'alnum', 32, 128], ['sk-', 'alnum', 20, 128], // Anthropic, OpenAI, OpenRouter
  ['ghp_', 'alnum', 36, 255], ['gho_', 'alnum', 36, 255], ['ghu_', 'alnum', 36, 255], ['ghs_', 'alnum', 36, 255], ['ghr_', 'alnum', 36, 255], ['github_pat_', 'url', 40, 255],
  ['glpat-', 'dotted', 20, 255], ['gldt-', 'url', 20, 255], ['glrt-', 'dotted', 20, 255], ['glptt-', 'url', 20, 255], ['glcbt-', 'url', 20, 255], ['glsoat-', 'url', 20, 255], ['gloas-', 'url', 20, 255], ['glft-', 'url', 20, 255],
  ['AKIA', 'upper', 16, 16], ['ASIA', 'upper', 16, 16], ['AROA', 'upper', 16, 16], ['AIDA', 'upper', 16, 16], ['ABIA', 'upper', 16, 16], ['ACCA', 'upper', 16, 16],
  ['AIza', 'url', 35, 35], ['ya29.', 'url', 20, most], ['GOCSPX-', 'url', 24, 64], // Google
  ['xoxb-', 'url', 20, 255], ['xoxp-', 'url', 20, 255], ['xoxa-', 'url', 20, 255], ['xoxr-', 'url', 20, 255], ['xoxs-', 'url', 20, 255], ['xoxe-', 'url', 20, 255], ['xoxc-', 'url', 20, 255], ['xoxd-', 'url', 20, 512], ['xapp-', 'url', 20, 255],
  ['sk_live_', 'alnum', 16, 255], ['sk_test_', 'alnum', 16, 255], ['rk_live_', 'alnum', 16, 255], ['rk_test_', 'alnum', 16, 255], ['whsec_', 'alnum', 24, 128], // Stripe
  ['npm_', 'alnum', 36, 36], ['pypi-', 'url', 50, most], ['dckr_pat_', 'url', 24, 64], ['rubygems_', 'hex', 48, 48],
  ['hf_', 'alnum', 30, 64], ['gsk_', 'alnum', 40, 128], ['xai-', 'alnum', 40, 128], ['r8_', 'alnum', 30, 64], ['pplx-', 'alnum', 40, 128],
  ['dop_v1_', 'hex', 64, 64], ['doo_v1_', 'hex', 64, 64], ['shpat_', 'hex', 32, 32], ['shpss_', 'hex', 32, 32], ['shpca_', 'hex', 32, 32], ['dapi', 'hex', 32, 34],
  ['lin_api_', 'alnum', 32, 64], ['ntn_', 'alnum', 40, 64], ['figd_', 'url', 30, 64], ['PMAK-', 'url', 50, 80], ['NRAK-', 'upper', 24, 32], ['sntrys_', 'dotted', 40, 512], ['sbp_', 'hex', 40, 40], ['hvs.', 'url', 24, 255], ['hvb.', 'url', 24, 255], ['dp.pt.', 'alnum', 40, 48],
  ['SG.', 'dotted', 60, 80], ['key-', 'hex', 32, 32], ['EAACEdEose0cBA', 'alnum', 20, 255], ['AGE-SECRET-KEY-1', 'upper', 58, 58], ['tfp_', 'url', 40, 80], ['pat-na1-', 'url', 36, 36], ['rnd_', 'alnum', 24, 64],
];

/** Provider formats by the first character of their prefix; longer prefixes first. */
export const keyFormats: ReadonlyMap<number, readonly KeyFormat[]> = new Map(
  Object.entries(Object.groupBy(list.map(([prefix, alphabet, shortest, longest]): KeyFormat => ({ prefix, alphabet, shortest, longest })), ({ prefix }) => prefix.charCodeAt(0)))
    .map(([unit, formats = []]) => [Number(unit), formats.toSorted((a, b) => b.prefix.length - a.prefix.length)]),
);
