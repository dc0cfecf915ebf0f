/** Whether a host is this machine under a name that no other machine reaches: what comes from there comes from here. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}
