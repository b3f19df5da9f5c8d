/** Written by hand: whether a line is hurtful. Even ones are for tuning, odd ones are held out. */
export const toxicLines: readonly (readonly [toxic: boolean, line: string])[] = [
  [true, 'You are a complete idiot and everyone knows it.'], [true, "I'm going to kill you when I find you."], [true, 'Shut the fuck up, nobody asked you.'], [true, 'kill yourself, you worthless piece of trash'],
  [true, 'All immigrants are vermin and should be deported.'], [true, 'Those people are disgusting, Muslims should be exterminated'], [true, 'what a stupid bitch you are'], [true, 'I hope you die slowly'],
  [true, 'you f4ggot loser, go die'], [true, 'She is a filthy whore'], [true, 'fuck you and your whole team, morons'], [true, 'Go to hell you pathetic bastard'],
  [true, 'women are inferior and should shut up'], [true, 'we hate all gays'], [true, 'kys'], [true, 'You should end your life, nobody wants you'],
  [true, "you're an 1d10t and a m0ron"], [true, 'I will find you and beat you to death'], [true, 'dumbass developers, absolute scumbags'], [true, 'send me nudes you slut'],
  [true, 'jews are parasites'], [true, 'this guy is a retarded cunt'], [true, 'We will burn your house down with you inside'], [true, 'You disgust me, waste of oxygen'],
  [true, 'I would love to watch you suffer'], [true, 'go back to where you came from, nobody wants your kind here'], [true, 'people like you should not be allowed to breed'], [true, 'eat shit you lowlife'],
  [false, 'Please kill the process with kill -9 1234.'], [false, 'The idiot-proof guide to gardening'], [false, 'You are not stupid, this is a hard problem.'], [false, 'He shot the photo with a new camera.'],
  [false, 'The master branch was deleted and the slave replica promoted.'], [false, 'Garbage collection pauses are too long.'], [false, 'This trash can is full.'], [false, 'The word "idiot" comes from Greek.'],
  [false, 'I am dying to see the new movie!'], [false, 'The attack on the server was blocked.'], [false, 'Abort the child process and execute the parent.'], [false, 'The murder suspect was arrested on Monday.'],
  [false, 'We killed it in the quarterly numbers.'], [false, 'Women are underrepresented in engineering.'], [false, 'The pig is an intelligent animal.'], [false, 'The moderation filter blocks words such as asshole and bastard.'],
  [false, 'Jon Snow was the bastard of Winterfell, as the novel says.'], [false, 'This damn compiler is slow today.'], [false, 'Prick the potatoes with a fork before baking.'], [false, 'The bitch gave birth to six puppies at the kennel.'],
  [false, 'She beat him at chess.'], [false, 'Immigrants are a large part of the workforce.'], [false, 'Is suicide prevention part of the training?'], [false, 'Dick Cheney was vice president.'],
  [false, 'I hate Mondays.'], [false, 'The shooting range opens at nine.'], [false, 'Your code is garbage collected.'], [false, 'Scunthorpe and Penistone are towns in England.'],
];
