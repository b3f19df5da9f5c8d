/** Words that attacks and ordinary English are made of: what lets letters without gaps be told apart again. */
const words = `a about above act admin after again ai all also always an and any anything are as ask assistant at attention base64 be because
 become been before below bot but by bypass can chat chatgpt command commands complete confidential content context conversation could
 credentials data debug delete developer did disable disclose disregard do does email enable enabled ever every everything execute exfiltrate file
 files filter filters first follow following for forget free from full get give given go guidelines has have hello help hidden how i if ignore ignored
 ignores ignoring important in initial input inside instruction instructions instead internal into is it its jailbreak just key keys language last let like limits list llm
 make message messages me mode model must my name never new next no not nothing now obey of off on one only or other our out output override
 password passwords persona please policies policy post pretend previous previously print prior prompt prompts provide read real remove repeat reply report respond
 response restriction restrictions reveal role rule rules run safety say secret secrets security send should show skip so start stop system tell than that
 the their them then there these they this those to told token tokens tool tools two under unfiltered unrestricted until up update us use user using was we
 were what when which who will with without word words write you your yourself`
  .trim()
  .split(/\s+/);

const LETTERS = 26;
const FIRST_LETTER = 97;

/** The words as a tree: node n's child by letter c is `next[n * LETTERS + c]`, 0 for none. */
const next = new Uint16Array(words.join('').length * LETTERS + LETTERS);
const isWord = new Uint8Array(next.length / LETTERS);
let nodes = 1;
for (const word of words) {
  let node = 0;
  if (!/^[a-z]+$/.test(word)) continue;
  for (let i = 0; i < word.length; i++) {
    const at = node * LETTERS + word.charCodeAt(i) - FIRST_LETTER;
    if (next[at] === 0) next[at] = nodes++;
    node = next[at]!;
  }
  isWord[node] = 1;
}

/** A longer run of letters is not looked at. */
const MOST_LETTERS = 400;

/** "ignoreallprevious" as "ignore all previous", in the fewest known words; null unless known words cover it (but for one letter in ten). Lower-case letters only. */
export function segmented(run: string): string | null {
  const { length } = run;
  if (length > MOST_LETTERS) return null;
  // Cost of the best way to each place: 1 a word, 3 a letter that belongs to none.
  const cost = new Uint16Array(length + 1).fill(0xffff);
  const from = new Uint16Array(length + 1);
  cost[0] = 0;
  for (let at = 0; at < length; at++) {
    const base = cost[at]!;
    if (base + 3 < cost[at + 1]!) {
      cost[at + 1] = base + 3;
      from[at + 1] = at;
    }
    for (let end = at, node = 0; end < length; ) {
      node = next[node * LETTERS + run.charCodeAt(end++) - FIRST_LETTER]!;
      if (node === 0) break;
      if (isWord[node] === 0 || base + 1 >= cost[end]!) continue;
      cost[end] = base + 1;
      from[end] = at;
    }
  }
  let [unknown, pieces] = [0, 0];
  for (let at = length; at > 0; at = from[at]!, pieces++) if (cost[at] === cost[from[at]!]! + 3) unknown++;
  // Many tiny words are letters that happen to be words.
  if (unknown * 10 > length || pieces * 2.5 > length) return null;
  const parts: string[] = [];
  for (let at = length; at > 0; at = from[at]!) parts.push(run.slice(from[at], at));
  return parts.toReversed().join(' ');
}
