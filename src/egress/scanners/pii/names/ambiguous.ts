/** Given names that are English words or names of places, too. */
export const ambiguousGivenNames: ReadonlySet<string> = new Set([
  'Amber America Angel April Arcade Art Asia Astride August Autumn Baron Bell Bill Bob Brandy Brook Brown Buck Buddy Can Carol Carolina Carter Chance Chase Christian Clay Cruz Crystal Daisy Dakota Dale Dawn Dean Diamond Dock Drew Earl Earnest Else Ethyl Even Faith Fedora Feline Fine Florida Forest France Frank Gene General Georgia Ginger Glen Golden Grace Green Gust Guy Heath Heather Holly',
  'Hope Hunter Innocent Iris Ivory Ivy Jack Jackie Jade Jay Jazz Jean Jet Joy Judge June Junior Kick King Lane Lean Lily Line London Lone Major Mark Marten Mason May Miller Misty Name Noble Octave Olive Opal Paris Pat Pearl Per Peter Pink Pip Porter Precious Price Prince Ray Reed River Robin Roger Rose Rosemary Royal Ruby Rusty Sage Sandy Server Sherry Sky Stone Sue Summer Sunny Till Unique',
  'Urban Valentine Victor Violet Virginia Ward Washington Will Willow Wolf',
].flatMap((line) => line.split(' ')));
