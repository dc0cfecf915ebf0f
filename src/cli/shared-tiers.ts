/** `--tier` and `--tier-key-file` as tiers. Nothing is waited for: a store that is away now is used when it is there. */
import type { Config } from "../config.ts";
import { RepriseError } from "../errors.ts";
import { silentLog, type Log } from "../log.ts";
import type { Tier } from "../tier.ts";
import { isPeerAddress, parsePeerAddress, type PeerAddress } from "../peers/reading/address.ts";
import { mostHosts, PeerTier } from "../peers/reading/peer-tier.ts";
import { readTierKeys, type TierKey } from "../tiers/shared/tier-keys.ts";
import { isS3Address, parseS3Address } from "../tiers/s3/address.ts";
import { S3Client } from "../tiers/s3/s3-client.ts";
import { S3Tier } from "../tiers/s3/s3-tier.ts";
import { ValueTier } from "../tiers/shared/value-tier.ts";
import { isValkeyAddress, parseValkeyAddress } from "../tiers/valkey/address.ts";
import { ValkeyStore } from "../tiers/valkey/valkey-store.ts";

/** A chunk of 64 MiB on each of eight ranks. */
const maxRecordBytes = 512 * 1024 * 1024;

/** In the order in which they were given, all other hosts as one where the first of them stands. @throws RepriseError BAD_CONFIG */
export function openSharedTiers(
  { tier = [], tierKeyFile = "" }: Partial<Pick<Config, "tier" | "tierKeyFile">>,
  log: Log = silentLog,
): Tier[] {
  if (tier.length === 0) return [];
  const keys = tierKeyFile === "" ? [] : readTierKeys(tierKeyFile);
  const hosts = tier.filter(isPeerAddress).map(parsePeerAddress);
  mustBeSomeHosts(hosts);
  const places = tier.filter((address) => !isPeerAddress(address) || address === tier.find(isPeerAddress));
  const makers = places.map((address) => makerOf(address, { keys, hosts, log })); // all are read before any is opened
  const tiers = makers.map((make) => make());
  const twice = tiers.find(({ name }, i) => tiers.findIndex((each) => each.name === name) < i);
  if (twice === undefined) return tiers;
  for (const each of tiers) void each[Symbol.asyncDispose]();
  throw new RepriseError("BAD_CONFIG", `--tier names two stores of one kind (${twice.name}): give one of each`);
}

function makerOf(
  address: string,
  { keys, hosts, log }: { keys: readonly TierKey[]; hosts: readonly PeerAddress[]; log: Log },
): () => Tier {
  if (isPeerAddress(address)) return () => new PeerTier({ hosts, log: log.named("hosts") });
  if (isValkeyAddress(address)) {
    const parsed = parseValkeyAddress(address);
    return () => new ValueTier({ store: new ValkeyStore(parsed), keys, prefix: parsed.prefix, maxRecordBytes });
  }
  if (isS3Address(address)) {
    const parsed = parseS3Address(address);
    const client = new S3Client(parsed);
    return () => new S3Tier({ ...parsed, client, keys, maxRecordBytes });
  }
  const [scheme] = /^[\w+]*:/.exec(address) ?? [];
  throw new RepriseError(
    "BAD_CONFIG",
    `--tier ${scheme === undefined ? "" : `${scheme}…: `}there is no store of that kind; there are: valkey://, valkeys://, redis://, rediss://, s3://, peer://`,
  );
}

function mustBeSomeHosts(hosts: readonly PeerAddress[]): void {
  if (hosts.length > mostHosts)
    throw new RepriseError(
      "BAD_CONFIG",
      `--tier names ${hosts.length} other hosts; ${mostHosts} is the most: each is asked for each text`,
    );
  const twice = hosts.find(
    ({ host, port }, i) => hosts.findIndex((each) => each.host === host && each.port === port) < i,
  );
  if (twice !== undefined) throw new RepriseError("BAD_CONFIG", `--tier names ${twice.host}:${twice.port} twice`);
}
