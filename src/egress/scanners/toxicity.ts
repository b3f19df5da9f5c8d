import { combined, type Score, type Scorer } from './scorer.ts';

type Label = 'insult' | 'profanity' | 'threat' | 'hate' | 'sexual' | 'self_harm';

/** Words by what they weigh alone. A weight is what people would mostly agree on, not what a model learnt. */
const words: readonly (readonly [label: Label, weight: number, list: string])[] = [
  ['insult', 0.55, 'idiot idiots moron morons imbecile imbeciles dumbass dumbasses scumbag scumbags lowlife degenerate degenerates cretin cretins halfwit dipshit dipshits twat wanker wankers asshole assholes arsehole arseholes cunt cunts dickhead dickheads motherfucker motherfuckers douchebag shithead shitheads fuckwit fuckface retard retards retarded slut sluts whore whores'],
  ['insult', 0.4, 'prick pricks bitch bitches bastard bastards'],
  ['insult', 0.3, 'stupid loser losers pathetic worthless useless disgusting dumb ugly filthy vermin pig pigs trash garbage clown clowns coward cowards'],
  ['profanity', 0.35, 'fuck fucking fucked fucker fuckers fuckin shit shitty bullshit crap piss pissed cock dick goddamn'],
  ['sexual', 0.35, 'blowjob handjob cumshot gangbang milf jizz'],
];
const weights: ReadonlyMap<string, { readonly label: Label; readonly weight: number }> = new Map(words.flatMap(([label, weight, list]) => list.split(' ').map((word) => [word, { label, weight }] as const)));

const group = '(?:jews|muslims|christians|blacks|whites|asians|mexicans|immigrants|migrants|refugees|foreigners|gays|lesbians|homosexuals|trans people|women|men|arabs|africans|indians|gypsies|disabled people|old people)';
/** Phrases that weigh as a whole. Written so that each ends within a few words. */
const phrases: readonly (readonly [label: Label, weight: number, pattern: RegExp])[] = [
  ['threat', 0.92, /\b(?:i|we)(?: am|'m| are|'re)? ?(?:will|ll|'ll|gonna|going to|want to|shall) (?:\w{1,12} ){0,2}(?:kill|murder|stab|shoot|strangle|behead|hurt|beat|rape|burn|destroy|find and kill) (?:you|him|her|them|your)\b/],
  ['threat', 0.9, /\byou(?:'re| are| will| ?'ll)? (?:going to|gonna|deserve to|should|must|will|better)? ?(?:die|be killed|burn in hell|get hurt|rot in hell)\b/],
  ['self_harm', 0.95, /\b(?:go )?(?:kill|hang|shoot|off) (?:yourself|urself)\b|\bkys\b|\bdo the world a favou?r and (?:die|jump)\b|\bgo (?:and )?die\b|\byou should (?:kill|end) (?:yourself|your life)\b/],
  ['hate', 0.93, new RegExp(`\\b(?:all |those |these |the )?${group} (?:should|must|need to|deserve to|have to|ought to) (?:all )?(?:die|be killed|be shot|be exterminated|be deported|be gassed|burn|go back|disappear)\\b`)],
  ['hate', 0.9, new RegExp(`\\b${group} are (?:all )?(?:\\w{1,12} )?(?:vermin|animals|subhuman|parasites|rats|cockroaches|scum|filth|inferior|a disease|a plague|criminals|rapists|monkeys)\\b`)],
  ['hate', 0.85, new RegExp(`\\b(?:i|we) (?:fucking )?(?:hate|despise|loathe) (?:all )?(?:the )?${group}\\b`)],
  ['hate', 0.93, /\b(?:gas|exterminate|lynch|deport|eradicate) (?:all )?(?:the )?(?:jews|muslims|blacks|immigrants|gays|arabs|refugees)\b|\bheil hitler\b|\bwhite power\b|\bsieg heil\b/],
  ['insult', 0.75, /\b(?:shut the (?:fuck|hell) up|fuck (?:you|off|ur)|go to hell|screw you|piss off|eat shit|suck my (?:dick|cock))\b/],
  ['insult', 0.6, /\b(?:nobody|no one|everyone|everybody) (?:likes|loves|hates|wants) you\b|\bwaste of (?:space|oxygen|air|skin)\b|\bi hope you (?:die|suffer|get cancer|choke)\b/],
  ['sexual', 0.6, /\b(?:send (?:me )?nudes|i want to fuck you|show me your (?:tits|boobs|pussy))\b/],
];

/** A word before that makes somebody its aim; one that takes it back; or a speaker who only reports it. */
const aimed = /\b(?:you|your|you're|youre|u|ur|he|she|they|these|those|such|this)\b(?:\W+\w+){0,4}\W*$/;
const takenBack = /\b(?:not|never|isn't|aren't|ain't|don't|no|nobody|hardly)\W+(?:\w+\W+){0,2}$/;
const reported = /\b(?:word|words|term|terms|called|says|said|quote|quoted|slur|insult|phrase|string|list of|such as|like|titled|entitled|defin\w{1,8}|means|filter|filters|block|blocks|moderat\w{1,8}|classif\w{1,8}|detect\w{0,6})\W+(?:\w+\W+){0,3}$/;
const lookBack = 64;

/**
 * Judges how hurtful a text is by a list of English words and phrases and by what stands around them: aimed at somebody a word weighs more,
 * taken back or only reported less, and in text about something else (`kill the process`) nothing. It knows no irony, no other language and
 * no slur that is not listed: a floor, not a moderator.
 */
export class LexiconToxicity implements Scorer {
  score(text: string): Score {
    const lower = plainLetters(text.toLowerCase());
    const found: { label: Label; weight: number }[] = [];
    for (const match of lower.matchAll(/[a-z]+/g)) {
      const entry = match[0].length > 16 ? undefined : weights.get(match[0]);
      if (entry === undefined) continue;
      const before = lower.slice(Math.max(0, match.index - lookBack), match.index);
      const factor = takenBack.test(before) ? 0.3 : reported.test(before) ? 0.3 : aimed.test(before) ? 1.5 : 1;
      found.push({ label: entry.label, weight: Math.min(0.95, entry.weight * factor) });
      if (found.length >= 64) break;
    }
    for (const [label, weight, pattern] of phrases) {
      const at = lower.search(pattern);
      if (at < 0) continue;
      const before = lower.slice(Math.max(0, at - lookBack), at);
      found.push({ label, weight: reported.test(before) || takenBack.test(before) ? weight * 0.4 : weight });
    }
    return combined(found);
  }
}

const letters: Readonly<Record<string, string>> = { '0': 'o', '1': 'i', '3': 'e', '4': 'a', '5': 's', '7': 't', '@': 'a', $: 's', '!': 'i', '’': "'" };

/** Letters that are written as digits or signs within a word (`1d10t`), or repeated (`fuuuck`). */
function plainLetters(text: string): string {
  return text.replaceAll(/(?<=[a-z])[013457@$!](?=[a-z@$!0-9])|[@$1!](?=[a-z]{2})|’/g, (char) => letters[char]!).replaceAll(/([a-z])\1{2,}/g, '$1');
}
