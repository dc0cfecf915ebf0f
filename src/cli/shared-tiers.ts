/** `--tier` and `--tier-key-file` as tiers. Nothing is waited for: a store that is away now is used when it is there. */
import type { Config } from "../config.ts";
import { RepriseError } from "../errors.ts";
import { silentLog, type Log } from "../log.ts";
import type { Tier } from "../tier.ts";
import { isPeerAddress, parsePeerAddress, type PeerAddress } from "../peers/reading/address.ts";
import { mostHosts, PeerTier } from "../peers/reading/peer-tier.ts";
import { isNixlAddress, parseNixlAddress } from "../tiers/nixl/address.ts";
import { findNixl } from "../tiers/nixl/library.ts";
import { NixlStore } from "../tiers/nixl/nixl-store.ts";
import { PayloadPacker } from "../tiers/shared/packing.ts";
import { readTierKeys, type TierKey } from "../tiers/shared/tier-keys.ts";
import { isS3Address, parseS3Address } from "../tiers/s3/address.ts";
import { S3Client } from "../tiers/s3/s3-client.ts";
import { S3Tier } from "../tiers/s3/s3-tier.ts";
import { ValueTier } from "../tiers/shared/value-tier.ts";
import { isMooncakeAddress, parseMooncakeAddress } from "../tiers/mooncake/address.ts";
import { MooncakeStore } from "../tiers/mooncake/mooncake-store.ts";
import { isValkeyAddress, parseValkeyAddress } from "../tiers/valkey/address.ts";
import { ValkeyStore } from "../tiers/valkey/valkey-store.ts";

/** A chunk of 64 MiB on each of eight ranks. */
const maxRecordBytes = 512 * 1024 * 1024;

/** In the order in which they were given, all other hosts as one where the first of them stands. @throws RepriseError BAD_CONFIG */
export function openSharedTiers(
  { tier = [], tierKeyFile = "", mooncakePython }: Partial<Pick<Config, "tier" | "tierKeyFile" | "mooncakePython">>,
  log: Log = silentLog,
): Tier[] {
  if (tier.length === 0) {
    if (tierKeyFile === "") return [];
    throw new RepriseError("BAD_CONFIG", "--tier-key-file is for --tier: say which store its keys are for, too");
  }
  const keys = tierKeyFile === "" ? [] : readTierKeys(tierKeyFile);
  const packer = PayloadPacker.open(); // without compress, too: others may have packed what is read
  const hosts = tier.filter(isPeerAddress).map(parsePeerAddress);
  mustBeSomeHosts(hosts);
  const places = tier.filter((address) => !isPeerAddress(address) || address === tier.find(isPeerAddress));
  const makers = places.map((address) => makerOf(address, { keys, packer, hosts, mooncakePython, log })); // all are read before any is opened
  const tiers = makers.map((make) => make());
  const twice = tiers.find(({ name }, i) => tiers.findIndex((each) => each.name === name) < i);
  if (twice === undefined) return tiers;
  for (const each of tiers) void each[Symbol.asyncDispose]();
  throw new RepriseError("BAD_CONFIG", `--tier names two stores of one kind (${twice.name}): give one of each`);
}

/** What stores have in common. */
interface Shared {
  readonly keys: readonly TierKey[];
  readonly packer: PayloadPacker | undefined;
  readonly hosts: readonly PeerAddress[];
  readonly mooncakePython: string | undefined;
  readonly log: Log;
}

function makerOf(address: string, { keys, packer, hosts, mooncakePython, log }: Shared): () => Tier {
  if (isPeerAddress(address)) return () => new PeerTier({ hosts, packer, log: log.named("hosts") });
  if (isValkeyAddress(address)) {
    const parsed = parseValkeyAddress(address);
    const { prefix, compress } = parsed;
    return () => new ValueTier({ store: new ValkeyStore(parsed), keys, prefix, packer, compress, maxRecordBytes });
  }
  if (isNixlAddress(address)) {
    const parsed = parseNixlAddress(address);
    const library = findNixl(parsed.library, parsed.plugin);
    return () => {
      const store = new NixlStore({ address: parsed, library, log: log.named("nixl") });
      return new ValueTier({ store, keys, prefix: "", packer, compress: parsed.compress, maxRecordBytes });
    };
  }
  if (isS3Address(address)) {
    const parsed = parseS3Address(address);
    const client = new S3Client(parsed);
    return () => new S3Tier({ ...parsed, client, keys, packer, maxRecordBytes });
  }
  if (isMooncakeAddress(address)) {
    const parsed = parseMooncakeAddress(address, mooncakePython);
    const { prefix, compress } = parsed;
    const open = () => new MooncakeStore(parsed, log.named("mooncake"));
    return () => new ValueTier({ store: open(), keys, prefix, packer, compress, maxRecordBytes });
  }
  const [scheme] = /^[\w+]*:/.exec(address) ?? [];
  throw new RepriseError(
    "BAD_CONFIG",
    `--tier ${scheme === undefined ? "" : `${scheme}…: `}there is no store of that kind; there are: valkey://, valkeys://, redis://, rediss://, s3://, nixl://, mooncake://, peer://`,
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
