/** Hosts of the tests' own: network namespaces on a bridge, with the rate and the delay that a test wants. Needs root. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";

/** False where namespaces cannot be made: no root, no iproute2, no permission. */
export const hostsCanBeMade = canMake();

export class Hosts implements Disposable {
  readonly #id: string;
  readonly #names: readonly string[];

  private constructor(id: string, names: readonly string[]) {
    this.#id = id;
    this.#names = names;
  }

  static make(names: readonly string[]): Hosts {
    const hosts = new Hosts(randomBytes(2).toString("hex"), names);
    try {
      hosts.#make();
      return hosts;
    } catch (error) {
      hosts[Symbol.dispose]();
      throw error;
    }
  }

  /** What `ip netns exec` takes. */
  namespace(host: string): string {
    return `reprise-${this.#id}-${host}`;
  }

  address(host: string): string {
    return `10.99.0.${this.#names.indexOf(host) + 1}`;
  }

  /**
   * What every host's link sends at most, such as "1gbit", and what it delays.
   *
   * @returns "rate" where the kernel has no netem: the rate is shaped, and the delay is not
   */
  shape(link: { readonly rate: string; readonly delayMs: number }): "both" | "rate" {
    let shaped: "both" | "rate" = "both";
    for (const host of this.#names) {
      const replace = ["tc", "qdisc", "replace", "dev", "eth0", "root"];
      try {
        this.#in(host, ...replace, "netem", "delay", `${link.delayMs}ms`, "rate", link.rate, "limit", "100000");
      } catch {
        shaped = "rate";
        this.#in(host, ...replace, "tbf", "rate", link.rate, "burst", "1mb", "latency", "400ms");
      }
    }
    return shaped;
  }

  /** Takes a host off the network, or puts it back. */
  connect(host: string, how: "up" | "down"): void {
    this.#in("switch", "ip", "link", "set", `port${this.#names.indexOf(host)}`, how);
  }

  [Symbol.dispose](): void {
    for (const name of [...this.#names, "switch"]) {
      try {
        ip("netns", "delete", this.namespace(name));
      } catch {
        // it was never made
      }
    }
  }

  #make(): void {
    ip("netns", "add", this.namespace("switch"));
    this.#in("switch", "ip", "link", "add", "bridge", "type", "bridge");
    this.#in("switch", "ip", "link", "set", "bridge", "up");
    for (const [i, host] of this.#names.entries()) {
      ip("netns", "add", this.namespace(host));
      const port = `port${i}`;
      this.#in(
        "switch",
        "ip",
        "link",
        "add",
        port,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        this.namespace(host),
      );
      this.#in("switch", "ip", "link", "set", port, "master", "bridge");
      this.#in("switch", "ip", "link", "set", port, "up");
      this.#in(host, "ip", "address", "add", `${this.address(host)}/24`, "dev", "eth0");
      this.#in(host, "ip", "link", "set", "eth0", "up");
      this.#in(host, "ip", "link", "set", "lo", "up");
    }
  }

  #in(host: string, ...command: readonly string[]): void {
    ip("netns", "exec", this.namespace(host), ...command);
  }
}

function ip(...args: readonly string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
}

function canMake(): boolean {
  if (process.platform !== "linux" || process.geteuid?.() !== 0 || !existsSync("/usr/sbin/tc")) return false;
  const name = `reprise-${randomBytes(4).toString("hex")}`;
  try {
    ip("netns", "add", name);
    ip("netns", "delete", name);
    return true;
  } catch {
    return false;
  }
}
