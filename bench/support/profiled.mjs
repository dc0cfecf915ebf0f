// Loaded into a process before its own program (`--import`): V8's profile of its main thread goes to a file when the process ends, with
// the ids of the threads that profiling itself needs.
import { readdirSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector";
import { basename, join } from "node:path";

const folder = process.env.REPRISE_PROFILES;
const session = new Session();
session.connect();
session.post("Profiler.enable");
session.post("Profiler.setSamplingInterval", { interval: 1000 });
const before = new Set(readdirSync("/proc/self/task"));
session.post("Profiler.start");
const ownThreads = readdirSync("/proc/self/task").filter((id) => !before.has(id));
process.on("exit", () => {
  session.post("Profiler.stop", (error, result) => {
    if (error !== null) throw error;
    const path = join(folder, `${basename(process.argv[1])}.${process.pid}.json`);
    writeFileSync(path, JSON.stringify({ ...result.profile, ownThreads }));
  });
});
