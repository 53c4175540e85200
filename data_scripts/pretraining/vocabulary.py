"""A small vocabulary for the tiny CLIP: those of CLIP's own merges that emoji captions use.

Byte-pair encoding always applies the best-ranked merge it can. Keeping, in CLIP's order, every
merge that was ever applied to a corpus therefore leaves the corpus' tokens exactly as CLIP's, with
a table of some thousand rows in place of 49,408.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer


def used_merges(corpus: list[str]) -> list[tuple[str, str]]:
    """The merges that tokenizing ``corpus`` applies, in CLIP's order."""
    tokenizer = SimpleTokenizer()
    parents = {first + second: (first, second) for first, second in tokenizer.bpe_ranks}
    used: set[tuple[str, str]] = set()
    pending = [token for text in corpus for token in _tokens(tokenizer, text)]
    while pending:
        pair = parents.get(pending.pop())
        if pair is not None and pair not in used:
            used.add(pair)
            pending += pair
    return sorted(used, key=tokenizer.bpe_ranks.__getitem__)


def _tokens(tokenizer: SimpleTokenizer, text: str) -> list[str]:
    return [tokenizer.decoder[token] for token in tokenizer.encode(text)]


def write_merges(merges: list[tuple[str, str]], path: Path) -> None:
    """Write the file that open_clip's ``SimpleTokenizer(bpe_path=...)`` reads."""
    lines = ["#merges of CLIP that emoji captions use", *(" ".join(pair) for pair in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
