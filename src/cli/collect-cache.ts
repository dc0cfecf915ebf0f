/** `reprise cache collect`: takes out of a shared store what has ended its time. Any host may, whether or not a cache runs there. */
import { formatBytes } from "../bytes.ts";
import type { Config } from "../config.ts";
import { RepriseError } from "../errors.ts";
import { isS3Address, parseS3Address } from "../tiers/s3/address.ts";
import { collect } from "../tiers/s3/collect.ts";
import { S3Client } from "../tiers/s3/s3-client.ts";

/** @throws RepriseError BAD_CONFIG, TIER_UNAVAILABLE */
export async function collectCache({ tier }: Pick<Config, "tier">): Promise<number> {
  const addresses = tier.filter(isS3Address).map((address) => parseS3Address(address));
  if (addresses.length === 0)
    throw new RepriseError(
      "BAD_CONFIG",
      "collect needs the address of a bucket: --tier s3://BUCKET/PREFIX. Values in Valkey end by themselves, and NIXL's files are tidied by every host",
    );
  for (const address of addresses) {
    const client = new S3Client(address);
    try {
      const { signal } = new AbortController(); // whoever started it ends it
      const { removedObjects, removedBytes, leftObjects, leftBytes } = await collect({ ...address, client, signal });
      process.stdout.write(
        `s3://${address.bucket}/${address.prefix}: ${removedObjects} objects removed, ${formatBytes(removedBytes)}; ` +
          `${leftObjects} left, ${formatBytes(leftBytes)}.\n`,
      );
    } finally {
      client.close();
    }
  }
  return 0;
}
