import type { PiiType } from '../../scanners/pii/types.ts';
import type { Random } from './labelled.ts';

export const lower = 'abcdefghijklmnopqrstuvwxyz';
export const alnum = `${lower}${lower.toUpperCase()}0123456789`;
export const hex = '0123456789abcdef';

// Written for this corpus, not taken from the lists of the scanner: some names are in them, some are not.
const given = ['Alice', 'Marcus', 'Priya', 'Chen', 'Fatima', 'Olga', 'Hiroshi', 'Kwame', 'Siobhan', 'Thabo', 'Ingrid', 'Mateo', 'Zainab', 'Björn', 'Élodie', 'Dmitri', 'Aaliyah', 'Wei', 'Nkechi', 'Lars', 'Jürgen', 'Camille', 'Giulia', 'Rohan', 'Yuki', 'Emma', 'Noah', 'Liam', 'Sophia', 'Oliver', 'Charlotte', 'James', 'Mary', 'Robert', 'Patricia', 'John', 'Jennifer', 'Michael', 'Linda', 'David', 'Barbara', 'Anna-Lena', 'Jean-Pierre', 'Xochitl', 'Tunde', 'Mehmet', 'Ayşe', 'Piotr', 'Katarzyna', 'Sanne'];
const family = ['Okafor', 'Nakamura', "O'Brien", 'van der Berg', 'de la Cruz', 'Müller', 'Schröder', 'Kowalski', 'Nguyen', 'Patel', 'Rodriguez', 'Smith', 'Johnson', 'Williams', 'Brown', 'García', 'Dubois', 'Rossi', 'Ivanova', 'Al-Farsi', 'Mbeki', 'Svensson', 'Hansen', 'Kim', 'Tanaka', 'Fitzgerald', 'McAllister', 'Lindqvist', 'Haddad', 'Yılmaz', 'Chowdhury', 'Eze', 'Moreau', 'Bianchi', 'Papadopoulos', 'Novak', 'Horvath', 'Silva', 'Castillo', 'Becker', 'Whitfield', 'Abernathy', 'Thornton', 'Delacroix', 'Weiss'];
const domains = ['example.com', 'example.org', 'mail.example.net', 'corp.example.co.uk', 'example.de', 'example.io', 'uni.example.edu', 'example.fr', 'example.com.br', 'post.example.jp', 'example.travel', 'xn--bcher-kva.example.com', 'bücher.de', 'a-b.example.dev', 'example.museum'];
const towns = ['Springfield, IL 62704', 'Portland, OR 97205', 'Austin, TX 78701', 'Brooklyn, NY 11215', 'San Diego, CA 92103-4512', 'Madison, Wisconsin 53703'];
const streets = ['Maple', 'Evergreen', 'Martin Luther King Jr', 'Old Mill', 'Washington', '5th', 'N Lincoln', 'Sunset', 'Cherry Blossom', 'Oak Hollow'];
const kinds = ['Street', 'St', 'Avenue', 'Ave', 'Road', 'Rd.', 'Boulevard', 'Blvd', 'Lane', 'Drive', 'Court', 'Pkwy'];
const british = ['London NW1 6XE', 'Manchester M1 4BT', 'Edinburgh EH1 2NG', 'Leeds LS1 5AB'];
const german = ['Hauptstraße', 'Lindenweg', 'Goethestr.', 'Am Markt', 'Kurfürstendamm', 'Berliner Allee', 'Schillerplatz', 'Neue Gasse'];
const germanTowns = ['10115 Berlin', '80331 München', '20095 Hamburg', '50667 Köln', '60311 Frankfurt'];
const french = ['rue de la Paix', 'avenue Victor Hugo', 'boulevard Saint-Michel', 'place du Marché', 'chemin des Vignes', 'impasse des Lilas'];
const frenchTowns = ['75002 Paris', '69001 Lyon', '13001 Marseille', '33000 Bordeaux'];
const areas = ['212', '415', '312', '617', '206', '303', '512', '404', '702', '305', '713', '602', '916', '503', '919'];
/** Numbers of other countries, whose last digits (`d`) may be any. */
const abroad = ['+44 20 7946 0ddd', '+44 7700 900ddd', '+49 30 9018dddd', '+49 1512 345dddd', '+33 1 42 68 5d dd', '+33 6 12 34 5d dd', '+34 612 34 5d dd', '+39 333 123 4ddd', '+91 98765 4dddd', '+55 11 96123-4ddd', '+81 90-1234-5ddd', '+61 412 345 ddd', '+31 6 12345ddd', '+46 70 123 45 dd', '+48 512 345 ddd', '+52 55 1234 5ddd', '+27 71 123 4ddd', '+254 712 345ddd', '+65 8123 4ddd', '+971 50 123 4ddd', '+90 501 234 5d dd', '+41 78 123 45 dd', '+353 85 012 3ddd'];
const cards: readonly (readonly [prefix: string, length: number])[] = [['4', 16], ['4', 13], ['51', 16], ['55', 16], ['2221', 16], ['2720', 16], ['34', 15], ['37', 15], ['6011', 16], ['65', 16], ['3530', 16], ['36', 14], ['305', 14], ['6221', 19], ['5018', 16], ['6304', 18]];
const providers: readonly ((random: Random) => string)[] = [
  (r) => `sk-${r.chars(alnum, 48)}`,
  (r) => `sk-proj-${r.chars(`${alnum}_-`, 60)}${r.chars(alnum, 10)}`,
  (r) => `sk-ant-api03-${r.chars(`${alnum}_-`, 93)}AA`,
  (r) => `ghp_${r.chars(alnum, 36)}`,
  (r) => `github_pat_${r.chars(alnum, 22)}_${r.chars(alnum, 59)}`,
  (r) => `glpat-${r.chars(alnum, 20)}`,
  (r) => `AKIA${r.chars('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', 15)}7`,
  (r) => `AIza${r.chars(alnum, 35)}`,
  (r) => `xoxb-${r.digits(12)}-${r.digits(12)}-${r.chars(alnum, 24)}`,
  (r) => `sk_live_${r.chars(alnum, 24)}`,
  (r) => `npm_${r.chars(alnum, 36)}`,
  (r) => `pypi-AgEIcHlwaS5vcmc${r.chars(alnum, 60)}`,
  (r) => `${Buffer.from(`{"alg":"HS256","kid":"${r.digits(4)}"}`).toString('base64url')}.${Buffer.from(`{"sub":"${r.digits(10)}"}`).toString('base64url')}.${r.chars(alnum, 43)}`,
  (r) => `-----BEGIN RSA PRIVATE KEY-----\n${r.chars(alnum, 64)}\n${r.chars(alnum, 64)}\n-----END RSA PRIVATE KEY-----`,
  (r) => `hf_${r.chars(alnum, 34)}`,
  (r) => `SG.${r.chars(alnum, 22)}.${r.chars(alnum, 43)}`,
];

function cardNumber(random: Random): string {
  const [prefix, length] = random.pick(cards);
  const body = prefix + random.digits(length - prefix.length - 1);
  const sum = [...body].reverse().reduce((sum, char, i) => sum + (i % 2 === 1 ? Number(char) : Number(char) * 2 - (Number(char) > 4 ? 9 : 0)), 0);
  const digits = body + String((10 - (sum % 10)) % 10);
  const separator = random.pick(['', '', ' ', '-']);
  if (separator === '') return digits;
  const groups = length === 15 ? [4, 6, 5] : length === 14 ? [4, 6, 4] : [4, 4, 4, 4, 4];
  const parts: string[] = [];
  for (let at = 0, i = 0; at < digits.length; at += groups[i++]!) parts.push(digits.slice(at, at + groups[i]!));
  return parts.join(separator);
}

function phone(random: Random): string {
  if (random.next() < 0.5) {
    const [area, exchange, line] = [random.pick(areas), `${random.int(2, 9)}${random.int(2, 9)}${random.int(2, 9)}`, random.digits(4)];
    return random.pick([`(${area}) ${exchange}-${line}`, `${area}-${exchange}-${line}`, `${area}.${exchange}.${line}`, `+1 ${area} ${exchange} ${line}`, `+1${area}${exchange}${line}`, `1-${area}-${exchange}-${line}`, `+1 (${area}) ${exchange}-${line}`]);
  }
  const number = random.pick(abroad).replaceAll('d', () => random.digits(1));
  return random.pick([number, number.replaceAll(/[ -]/g, ''), number.replaceAll(' ', '-')]);
}

function ipAddress(random: Random): string {
  if (random.next() < 0.6) return [random.pick([10, 23, 52, 93, 172, 192, 203, 198]), random.int(0, 255), random.int(0, 255), random.int(1, 254)].join('.');
  const group = (): string => random.chars(hex, 4).replace(/^0+(?=.)/, '');
  return random.pick([
    () => `2001:db8:${group()}:${group()}:${group()}:${group()}:${group()}:${group()}`,
    () => `2001:db8::${group()}`,
    () => `fe80::${group()}:${group()}:${group()}:1${group().slice(0, 3)}`,
    () => `2A02:26F0::${group().toUpperCase()}:1`,
    () => `::ffff:203.0.113.${random.int(1, 254)}`,
  ])();
}

/** Made-up data of each kind, in the ways in which people and programs write it. */
export const values: Readonly<Record<PiiType, (random: Random) => string>> = {
  ssn: (r) => {
    const area = r.pick([r.int(1, 665), r.int(667, 899)]);
    const separator = r.pick(['-', '-', '-', ' ']);
    return [String(area).padStart(3, '0'), String(r.int(1, 99)).padStart(2, '0'), String(r.int(1, 9999)).padStart(4, '0')].join(separator);
  },
  credit_card: cardNumber,
  email: (r) => {
    const name = r.pick(given).toLowerCase().normalize('NFD').replaceAll(/[^a-z-]/g, '') || 'post';
    const local = r.pick([name, `${name}.${r.chars(lower, 6)}`, `${name}+${r.chars(lower, 4)}`, `${name}_${r.digits(2)}`, `${name}${r.digits(4)}`, `${r.chars(lower, 1)}.${name}`, `"${name} ${r.chars(lower, 5)}"`, `jürgen.${r.chars(lower, 4)}`]);
    return `${local}@${r.pick(domains)}`;
  },
  phone,
  api_key: (r) => r.pick(providers)(r),
  ip_address: ipAddress,
  address: (r) => r.pick([
    () => `${r.int(1, 9999)} ${r.pick(streets)} ${r.pick(kinds)}, ${r.pick(towns)}`,
    () => `${r.int(1, 9999)} ${r.pick(streets)} ${r.pick(kinds)}, Apt ${r.int(1, 99)}, ${r.pick(towns)}`,
    () => `${r.int(1, 300)} ${r.pick(streets)} ${r.pick(['Road', 'Street', 'Gardens', 'Lane'])}, ${r.pick(british)}`,
    () => `${r.pick(german)} ${r.int(1, 180)}, ${r.pick(germanTowns)}`,
    () => `${r.int(1, 150)} ${r.pick(french)}, ${r.pick(frenchTowns)}`,
    () => `P.O. Box ${r.int(10, 99999)}`,
  ])(),
  person_name: (r) => r.pick([() => `${r.pick(given)} ${r.pick(family)}`, () => `${r.pick(given)} ${r.chars(lower.toUpperCase(), 1)}. ${r.pick(family)}`, () => `${r.pick(given)} ${r.pick(family)}`])(),
};
