import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { parseS3Address } from "./address.ts";

test("AWS, with what is left out", () => {
  expect(parseS3Address("s3://my-bucket", {})).toEqual({
    bucket: "my-bucket",
    prefix: "reprise",
    url: "https://my-bucket.s3.us-east-1.amazonaws.com",
    style: "virtual",
    region: "us-east-1",
    ca: undefined,
    login: { profile: undefined },
    access: "all",
    isPayloadSigned: false,
    ttlSeconds: 7 * 86_400,
    maxBytes: undefined,
    connections: 64,
    compress: "none",
  });
});

test("everything that can be said", () => {
  const ca = join(temporaryDirectory(), "ca.pem");
  writeFileSync(ca, "a certificate");
  const more = "ttl=12h&max=10GiB&connections=8&access=read&payload=signed&style=virtual&profile=me&compress=lossless";
  expect(parseS3Address(`s3://b-1/team/kv/?endpoint=https://store:9000&region=eu-1&ca=${ca}&${more}`, {})).toEqual({
    bucket: "b-1",
    prefix: "team/kv",
    url: "https://b-1.store:9000",
    style: "virtual",
    region: "eu-1",
    ca: Buffer.from("a certificate"),
    login: { profile: "me" },
    access: "read",
    isPayloadSigned: true,
    ttlSeconds: 43_200,
    maxBytes: 10 * 2 ** 30,
    connections: 8,
    compress: "lossless",
  });
});

test("what other programs read from the environment counts, and the address before it", () => {
  const environment = { AWS_REGION: "eu-west-1", AWS_ENDPOINT_URL: "http://127.0.0.1:9000", AWS_PROFILE: "theirs" };
  expect(parseS3Address("s3://bucket", environment)).toMatchObject({
    url: "http://127.0.0.1:9000",
    style: "path",
    region: "eu-west-1",
    login: { profile: "theirs" },
    isPayloadSigned: true,
  });
  expect(
    parseS3Address("s3://bucket?region=cn-north-1&profile=mine", { ...environment, AWS_ENDPOINT_URL: undefined }),
  ).toMatchObject({ url: "https://bucket.s3.cn-north-1.amazonaws.com.cn", login: { profile: "mine" } });
  expect(parseS3Address("s3://a.b.c?anonymous=yes", {})).toMatchObject({
    url: "https://s3.us-east-1.amazonaws.com",
    style: "path",
    login: "anonymous",
  });
});

test.each([
  ["s3:/bucket", /must look like s3:\/\/BUCKET/],
  ["s3://", /must look like/],
  ["s3://AKIA:secret@bucket", /keys have no place in it/],
  ["s3://Bucket", /"Bucket" is no name/],
  ["s3://a", /"a" is no name/],
  ["s3://bucket/../x", /no name of dots alone/],
  ["s3://bucket/a//b", /no name of dots alone/],
  ["s3://bucket/a b", /prefix "a b" may have/],
  ["s3://bucket?tls=1", /no parameter "tls"; there are: endpoint,/],
  ["s3://bucket?endpoint=host:1", /endpoint must look like/],
  ["s3://bucket?endpoint=https://me:secret@host", /no place in the endpoint/],
  ["s3://bucket?endpoint=https://host/path", /nothing behind the port/],
  ["s3://bucket?region=a/b", /region "a\/b"/],
  ["s3://bucket?style=old", /style "old" is none of: path, virtual/],
  ["s3://bucket?endpoint=http://host&ca=x", /ca is for TLS/],
  ["s3://bucket?ca=/nope", /ca \/nope cannot be read/],
  ["s3://bucket?anonymous=yes&profile=me", /give one/],
  ["s3://bucket?ttl=1m", /ten minutes or more/],
  ["s3://bucket?ttl=7", /ttl "7" is no time/],
  ["s3://bucket?max=much", /max: "much" is not a size/],
  ["s3://bucket?connections=0", /connections "0"/],
  ["s3://bucket?payload=no", /payload "no" is none of/],
  ["s3://bucket?compress=yes", /compress "yes" is none of: none, lossless/],
  ["s3://bucket?ttl=1d&access=read&ttl=2d", /ttl is given twice/],
])("%s is refused, and nothing secret is in the message", (address, fault) => {
  expect(() => parseS3Address(address, {})).toThrow(fault);
  expect(() => parseS3Address(address, {})).toThrow(expect.objectContaining({ code: "BAD_CONFIG" }) as Error);
  try {
    parseS3Address(address, {});
  } catch (error) {
    expect(String(error)).not.toContain("secret");
  }
});
