"""The chat templates under tests/templates, each with a tokenizer that holds its control tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, normalizers
from transformers import PreTrainedTokenizerFast

from rollwright.models.tiny_model import tiny_tokenizer

FOLDER = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Family:
    """One template, and what its first line says of it."""

    name: str
    text: str
    notes: str

    @property
    def control(self) -> list[str]:
        return re.findall(r"\S+", self._note("control: "))

    @property
    def turn(self) -> str:
        return self._note("turn: ")

    @property
    def rewrites(self) -> bool:
        return "rewrites" in self.notes

    @property
    def dated(self) -> bool:
        return "dated" in self.notes

    def _note(self, key: str) -> str:
        found = [note.removeprefix(key) for note in self.notes.split(" -- ") if note.startswith(key)]
        return found[0].strip() if found else ""

    def tokenizer(self, *, folds: str = "") -> PreTrainedTokenizerFast:
        """Bytes and a few words; `folds` names a normaliser that is applied before control tokens are looked for."""
        tokens = tiny_tokenizer(["click fill system user assistant model"], vocab_size=400)
        if folds:
            tokens.backend_tokenizer.normalizer = NORMALISERS[folds]
        tokens.add_special_tokens(
            {
                "additional_special_tokens": [
                    AddedToken(name, special=True, normalized=bool(folds)) for name in self.control
                ]
            }
        )
        if eos := self._note("eos: "):
            tokens.eos_token = eos
        tokens.chat_template = self.text
        return tokens


NORMALISERS = {
    "NFKC": normalizers.NFKC(),
    "lower case": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    "no accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "no blanks": normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "")]),
}


def read_all() -> dict[str, Family]:
    found = {}
    for file in sorted(FOLDER.glob("*.jinja")):
        text = file.read_text(encoding="utf-8")
        notes = re.match(r"\{#- (.*) -#\}", text)
        assert notes, f"{file.name} does not say what its control tokens are"
        found[file.stem] = Family(file.stem, text, notes[1])
    return found


FAMILIES = read_all()
