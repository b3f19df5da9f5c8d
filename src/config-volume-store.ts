/** An object store for volumes, as the operator has named it. */
export interface VolumeStoreConfig {
  readonly bucket: string;
  /** Of the names of all objects: empty, or ending with a slash. */
  readonly prefix: string;
  /** Origin of an S3-compatible server; null for the one of AWS. */
  readonly endpoint: string | null;
  readonly region: string;
  /** Whether the bucket is the first part of the path, and not of the host name. */
  readonly pathStyle: boolean;
  /** JSON with the key; null for `key`. */
  readonly credentialsFile: string | null;
  /** From the environment. Never shown. */
  readonly key: StoreKey | null;
}

export interface StoreKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string | null;
}

type Wrong = (variable: string, problem: string) => Error;

/** Null when volumes are to lie on the disk of the machine. Throws what `wrong` makes, for what cannot be used. */
export function parseVolumeStore(read: (name: string) => string | null, file: (variable: string) => string | null, wrong: Wrong): VolumeStoreConfig | null {
  const text = read('PADDOCK_VOLUME_STORE');
  if (text === null) return null;
  const [, bucket, prefix = ''] = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(text) ?? [];
  const parts = prefix.split('/').filter((part) => part !== '');
  if (bucket === undefined || parts.some((part) => !/^[A-Za-z0-9._-]{1,100}$/.test(part) || /^\.+$/.test(part)) || parts.length > 8) {
    throw wrong('PADDOCK_VOLUME_STORE', `must be s3://bucket or s3://bucket/prefix, of letters, digits, ".", "_" and "-", but is "${text}".`);
  }
  const endpoint = parseEndpoint(read('PADDOCK_VOLUME_STORE_ENDPOINT'), wrong);
  const region = read('PADDOCK_VOLUME_STORE_REGION') ?? 'us-east-1';
  if (!/^[a-z0-9-]{1,50}$/.test(region)) throw wrong('PADDOCK_VOLUME_STORE_REGION', `must be the name of a region such as eu-central-1, but is "${region}".`);
  const style = read('PADDOCK_VOLUME_STORE_PATH_STYLE') ?? (endpoint === null ? 'no' : 'yes');
  if (style !== 'yes' && style !== 'no') throw wrong('PADDOCK_VOLUME_STORE_PATH_STYLE', `must be yes or no, but is "${style}".`);
  const credentialsFile = file('PADDOCK_VOLUME_STORE_CREDENTIALS');
  const [accessKeyId, secretAccessKey, sessionToken] = [read('AWS_ACCESS_KEY_ID'), read('AWS_SECRET_ACCESS_KEY'), read('AWS_SESSION_TOKEN')];
  const key = accessKeyId === null || secretAccessKey === null ? null : Object.freeze({ accessKeyId, secretAccessKey, sessionToken });
  if (credentialsFile === null && key === null) throw wrong('PADDOCK_VOLUME_STORE', 'needs a key: name a file in PADDOCK_VOLUME_STORE_CREDENTIALS, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.');
  return Object.freeze({ bucket, prefix: parts.map((part) => `${part}/`).join(''), endpoint, region, pathStyle: style === 'yes', credentialsFile, key });
}

function parseEndpoint(text: string | null, wrong: Wrong): string | null {
  if (text === null) return null;
  const url = URL.canParse(text) ? new URL(text) : null;
  // Never repeats the value: somebody may have put a key into it.
  if (url === null || !['http:', 'https:'].includes(url.protocol) || url.hostname === '' || url.pathname !== '/' || url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '') {
    throw wrong('PADDOCK_VOLUME_STORE_ENDPOINT', 'must be http://host:port or https://host:port, without a key in it.');
  }
  return url.origin;
}
