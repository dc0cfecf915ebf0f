"""prose.py FOLDER OUT.txt: plain English out of HTML, text, POD, SGML and WordNet glosses, one paragraph a line."""

import gzip
import hashlib
import html
import re
import sys
from collections import Counter
from pathlib import Path

TRANSLATIONS = set(
    "ar bg ca cs da de el es fa fi fr hr hu id it ja ko lt nb nl pl pt pt-BR ro ru sk sl sv tr uk vi zh-CN zh-TW "
    "ar-MA da-DK de-DE el-GR es-ES fa-IR fr-FR hr-HR id-ID it-IT ja-JP ko-KR nb-NO nl-NL pl-PL ro-RO ru-RU sv-SE "
    "tr-TR vi-VN".split()
)
COMMON_WORDS = set(
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were all she there would their we him been has when who will more no if out so said what up its about "
    "into than them can only other new some could time these two may then do first any my now such like our over man "
    "me even most made after also did many before must through".split()
)
MARKUP = (".txt", ".pod", ".1", ".rst", ".sgml", ".asciidoc")
LARGEST_BYTES = 30_000_000


def main(folder, out):
    seen, written = set(), Counter()
    with open(out, "w", encoding="utf-8") as file:
        for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
            if TRANSLATIONS & set(path.parts) or path.stat().st_size > LARGEST_BYTES:
                continue
            for paragraph in map(clean, paragraphs(path)):
                digest = hashlib.sha256(paragraph[:120].encode()).digest()
                if is_english(paragraph) and digest not in seen:
                    seen.add(digest)
                    file.write(paragraph + "\n")
                    written[package_of(path)] += len(paragraph)
    for package, characters in written.most_common():
        print(f"{characters / 1e6:6.2f} MB  {package}")
    print(f"{sum(written.values()) / 1e6:6.2f} MB in all")


def paragraphs(path):
    """The paragraphs of one file as raw text; nothing for files of other kinds."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".html", ".htm")):
        return from_html(read(path))
    if name.endswith(MARKUP):
        unmarked = re.sub(r"[BCIFLEXS]<+\s*([^<>]*?)\s*>+", r"\1", read(path))
        return re.split(r"\n\s*\n", unmarked)
    if name.startswith("data.") and "wordnet" in path.parts:
        return from_wordnet(read(path))
    return []


def read(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "ignore")


def from_html(text):
    text = re.sub(r"(?is)<(script|style|pre|code|table|nav)[^>]*>.*?</\1>", " ", text)
    text = re.sub(r"(?i)</?(p|div|li|dd|dt|h\d|td|tr|ul|ol|section|br)[^>]*>", "\n\n", text)
    return re.split(r"\n\s*\n", html.unescape(re.sub(r"<[^>]+>", "", text)))


def from_wordnet(text):
    """`word: its gloss` of each line of a WordNet data file."""
    for line in text.splitlines():
        entry, bar, gloss = line.partition("|")
        fields = entry.split()
        if bar and len(fields) > 4:
            yield f"{fields[4].replace('_', ' ')}: {gloss}"


def clean(paragraph):
    return re.sub(r"\s+", " ", paragraph).strip()


def is_english(paragraph):
    """Long enough, mostly letters, nearly all ASCII, and with a fair share of common words."""
    if not 80 <= len(paragraph) <= 3000:
        return False
    words = paragraph.lower().split()
    letters = sum(c.isalpha() or c == " " for c in paragraph) / len(paragraph)
    ascii_share = sum(c < "\x80" for c in paragraph) / len(paragraph)
    common = sum(word in COMMON_WORDS for word in words) / len(words)
    return len(words) >= 14 and letters >= 0.88 and ascii_share >= 0.995 and common >= 0.22


def package_of(path):
    """The folder under usr/share/doc (or usr/share) that the file came from."""
    parts = path.parts[path.parts.index("share") + 1 :] if "share" in path.parts else path.parts
    return parts[1] if parts[0] == "doc" and len(parts) > 1 else parts[0]


if __name__ == "__main__":
    main(*sys.argv[1:3])
