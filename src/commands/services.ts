import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { Access } from '../core/access.ts';
import { systemClock } from '../core/clock.ts';
import { EventLog } from '../core/events.ts';
import { Idempotency } from '../core/idempotency.ts';
import { Files } from '../core/files.ts';
import type { Measures } from '../core/measures.ts';
import { Networks } from '../core/networks.ts';
import { Ports } from '../core/ports.ts';
import { Previews } from '../core/previews.ts';
import { Processes } from '../core/processes.ts';
import { Sandboxes } from '../core/sandboxes.ts';
import { SecretAttachments } from '../core/secrets/attachments.ts';
import { Authorities } from '../core/secrets/authorities.ts';
import { SecretBindings } from '../core/secrets/bindings.ts';
import { Secrets } from '../core/secrets/secrets.ts';
import { logInspections } from '../core/inspection-log.ts';
import { defaultSettings, type CoreSettings } from '../core/settings.ts';
import { TemplateShelf } from '../core/templates/shelf.ts';
import { Templates } from '../core/templates/templates.ts';
import { Tokens } from '../core/tokens.ts';
import { VolumeAttachments } from '../core/volume-attachments.ts';
import { VolumeCaptures } from '../core/volume-captures.ts';
import { VolumeFiles } from '../core/volume-files.ts';
import { VolumeLocks } from '../core/volume-locks.ts';
import { Volumes } from '../core/volumes.ts';
import { UpstreamProxy } from '../egress/upstream-proxy.ts';
import { openArtefacts } from '../host/artefacts.ts';
import { certificateMaker } from '../host/authorities.ts';
import { openHost, type LocalHost } from '../host/host.ts';
import { OciImages } from '../host/images/images.ts';
import { openStore, type SqlStore } from '../store/store.ts';
import { naming } from '../server.ts';
import { storeFiles } from './data-dir.ts';
import { templateSettings } from './template-settings.ts';
import { openVolumeStorage } from './volume-store.ts';

/** Everything behind the wires, started. Holds the data directory of its config: claim that first. */
export interface Services {
  readonly store: SqlStore;
  readonly host: LocalHost;
  readonly access: Access;
  readonly tokens: Tokens;
  readonly idempotency: Idempotency;
  readonly sandboxes: Sandboxes;
  readonly processes: Processes;
  readonly files: Files;
  readonly networks: Networks;
  readonly ports: Ports;
  readonly previews: Previews;
  readonly shelf: TemplateShelf;
  readonly ownTemplates: Templates;
  readonly volumes: Volumes;
  readonly secrets: Secrets;
  readonly secretAttachments: SecretAttachments;
  readonly volumeFiles: VolumeFiles;
  readonly volumeLocks: VolumeLocks;
  readonly volumeCaptures: VolumeCaptures;
  /** Ends this process's part; the sandboxes run on. */
  close(): Promise<void>;
}

/**
 * Opens store and host, and brings both together again: what was running is found, what is left over is removed.
 *
 * @param buildTemplate builds a template of the catalogue that is made on demand; without it there are none
 * @param measures hears how the work goes
 */
export async function openServices(config: Config, log: Logger, buildTemplate?: (name: string) => Promise<void>, measures?: Measures): Promise<Services> {
  const store = await openDataStore(config);
  const undo: (() => Promise<void>)[] = [() => store.close()];
  const close = async (): Promise<void> => {
    const failures: unknown[] = [];
    for (const step of undo.splice(0).reverse()) await step().catch((error: unknown) => failures.push(error));
    if (failures.length > 0) throw failures[0];
  };
  try {
    const clock = systemClock;
    const settings = coreSettings(config);
    const ofTemplates = templateSettings(config.templates);
    const host = await openHost({
      dataDir: config.dataDir,
      artefactsDir: config.artefactsDir,
      subnet: config.subnet === null ? undefined : `${config.subnet.address}/${config.subnet.prefix}`,
      warmGuests: config.warmGuests,
      keptMemoryMb: config.kept.memoryMb ?? undefined,
      keptSeconds: config.kept.seconds,
      egress: config.egress,
      volumeLimits: { bytes: settings.maxVolumeBytes, entries: settings.maxVolumeEntries },
      images: openImages(config),
      buildTemplate,
      log,
    });
    undo.push(() => host.close());
    const events = new EventLog({ store: store.events, clock });
    undo.push(() => events.stop());
    const access = new Access({ store, clock, events });
    const tokens = new Tokens(store.deriveKey('sandbox-tokens'));
    const { storage, close: closeStorage } = await openVolumeStorage(config, store.volumes, host.volumeDisks, log);
    undo.push(closeStorage);
    const volumes = new Volumes({ store, storage, clock, events, settings });
    await volumes.start();
    const shelf = new TemplateShelf(store.templates, host.templates);
    const authorities = new Authorities({ maker: certificateMaker, clock });
    authorities.keepReady();
    undo.push(async () => authorities.stop());
    const bindings = new SecretBindings({ store, clock, events, authorities, unscanned: config.unscanned });
    const sandboxes = new Sandboxes({ measures, store, host, templates: host.templates, shelf, clock, tokens, settings, events, naming, bindings, volumes: new VolumeAttachments(volumes) });
    const { arming } = sandboxes;
    const secrets = new Secrets({ store, clock, events, settings, arming });
    const secretAttachments = new SecretAttachments({ store, clock, events, bindings, arming, find: (principal, ref) => sandboxes.get(principal, ref) });
    logInspections({ store, host, events });
    const networks = new Networks({ measures, sandboxes, store, host, clock, events, settings });
    await sandboxes.start();
    undo.push(() => sandboxes.stop());
    const report = (err: Error): void => log.warn({ err }, 'what templates no longer need could not be removed; it is tried again');
    const ownTemplates = new Templates({ store, host, buildHost: host, shelf, clock, tokens, events, settings: ofTemplates, report });
    sandboxes.onEnd((_id, { template }) => ownTemplates.ended(template));
    await ownTemplates.start();
    undo.push(() => ownTemplates.stop());
    const processes = new Processes({ sandboxes, store, clock, settings, events });
    await processes.start();
    undo.push(async () => processes.stop());
    return {
      store,
      host,
      access,
      tokens,
      idempotency: new Idempotency({ store, clock, secret: store.deriveKey('idempotency') }),
      sandboxes,
      processes,
      files: new Files({ sandboxes, settings, events }),
      networks,
      ports: new Ports({ sandboxes }),
      previews: new Previews({ sandboxes, store, events }),
      shelf,
      ownTemplates,
      volumes,
      secrets,
      secretAttachments,
      volumeFiles: new VolumeFiles(volumes),
      volumeCaptures: new VolumeCaptures({ volumes, sandboxes }),
      volumeLocks: new VolumeLocks({ store, volumes, clock }),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Only the durable state; may be opened while a server runs. */
export async function openDataStore(config: Config): Promise<SqlStore> {
  return openStore(storeFiles(config));
}

function coreSettings(config: Config): CoreSettings {
  return Object.freeze({
    ...defaultSettings,
    maxSandboxes: config.maxSandboxes,
    maxTimeoutSeconds: config.maxTimeoutSeconds === 0 ? Number.MAX_SAFE_INTEGER : config.maxTimeoutSeconds,
    unknownTemplate: config.unknownTemplate,
    networkLogDays: config.networkLogDays,
    maxSnapshots: config.snapshots.max,
    maxVolumes: config.volumes.max,
    maxVolumeBytes: config.volumes.mb * 1024 * 1024,
    maxSecrets: config.maxSecrets,
    maxSnapshotBytes: config.snapshots.diskMb * 1024 * 1024,
  });
}

/** Images come through the company's proxy like the traffic of sandboxes. */
function openImages({ artefactsDir, egress: { upstreamProxy, extraCaFile }, images: { internalRegistries, mirror } }: Config): OciImages {
  const uplink = upstreamProxy === null ? null : new UpstreamProxy(upstreamProxy, extraCaFile);
  return new OciImages({ unpacker: openArtefacts(artefactsDir).unpacker.path, internalRegistries, mirror, uplink, extraCaFile });
}
