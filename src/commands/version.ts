import packageFile from '../../package.json' with { type: 'json' };

/** The version of this copy of Paddock. */
export const version: string = packageFile.version;
