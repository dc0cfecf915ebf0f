/**
 * Who we are to the store: keys from the environment, else from the file that AWS's tools keep, else none.
 *
 *     AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN      unless a profile is named
 *     AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, [PROFILE]     read again when the file has changed
 *
 * Keys of a session end after hours; whoever renews them writes the file anew. No key is in any message.
 */
import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { RepriseError } from "../../errors.ts";

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

const maxFileBytes = 1024 * 1024;

export class CredentialSource {
  readonly #profile: string | undefined;
  readonly #environment: Environment;
  #read: { readonly changed: string; readonly found: Credentials | undefined } | undefined;

  constructor(profile: string | undefined, environment: Environment = process.env) {
    this.#profile = profile;
    this.#environment = environment;
  }

  /** The keys as they are now. @throws RepriseError BAD_CONFIG when there are none, or not in the profile that was named */
  now(): Credentials {
    const given = this.#profile === undefined ? fromEnvironment(this.#environment) : undefined;
    const found = given ?? this.#fromFile();
    if (found !== undefined) return found;
    const place = this.#profile === undefined ? "" : ` in profile ${this.#profile} of ${this.#path()}`;
    throw new RepriseError(
      "BAD_CONFIG",
      `--tier s3://…: there are no keys${place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, write them to ` +
        `~/.aws/credentials, or say anonymous=yes`,
    );
  }

  #fromFile(): Credentials | undefined {
    const path = this.#path();
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined || !stats.isFile() || stats.size > maxFileBytes) return undefined;
    const changed = `${stats.ino} ${stats.mtimeMs} ${stats.size}`;
    if (this.#read?.changed !== changed)
      this.#read = { changed, found: inProfile(readFileSync(path, "utf8"), this.#profile ?? "default") };
    return this.#read.found;
  }

  #path(): string {
    return this.#environment["AWS_SHARED_CREDENTIALS_FILE"] ?? join(homedir(), ".aws", "credentials");
  }
}

function fromEnvironment(environment: Environment): Credentials | undefined {
  return complete({
    aws_access_key_id: environment["AWS_ACCESS_KEY_ID"],
    aws_secret_access_key: environment["AWS_SECRET_ACCESS_KEY"],
    aws_session_token: environment["AWS_SESSION_TOKEN"],
  });
}

/** Of a file of sections `[name]` with lines `key = value`. */
function inProfile(text: string, profile: string): Credentials | undefined {
  const values: Record<string, string> = {};
  let section = "";
  for (const line of text.split(/\r?\n/)) {
    const heading = /^\s*\[\s*(?:profile\s+)?([^\]]*?)\s*\]/.exec(line)?.[1];
    if (heading !== undefined) section = heading;
    const [, name, value] = /^\s*(aws_\w+)\s*=\s*(.*?)\s*$/.exec(line) ?? [];
    if (section === profile && name !== undefined) values[name] = value!; // the pattern has both
  }
  return complete(values);
}

function complete(values: Readonly<Record<string, string | undefined>>): Credentials | undefined {
  const [id, secret] = [values["aws_access_key_id"], values["aws_secret_access_key"]];
  if (id === undefined || id === "" || secret === undefined || secret === "") return undefined;
  const token = values["aws_session_token"];
  return { accessKeyId: id, secretAccessKey: secret, sessionToken: token === "" ? undefined : token };
}
