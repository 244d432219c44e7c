"""The words that the sites' data are made of: plain lists, so that a tiny model can learn the whole language."""

from __future__ import annotations


def _list(words: str) -> tuple[str, ...]:
    return tuple(words.split())


FIRST_NAMES = _list(
    "Ada Ben Clara David Emma Felix Grace Henry Irene Jonas Kate Leo Mara Nils Olga Paul Rosa Simon Tara Victor"
)
LAST_NAMES = _list("Abel Brandt Carver Dale Ellis Foster Grant Holm Irving Jansen Keller Lind Mason North Olsen Parker")
STREETS = _list("Mill Station Garden Church River Forest Market Harbour Castle Bridge")
CITIES = _list("Ashford Belmont Carlow Denton Elgin Falkirk Granby Harwich")

MATERIALS = _list("steel wooden cotton leather glass ceramic bamboo woollen")
QUALITIES = _list("light sturdy foldable waterproof compact soft durable portable quiet washable")
COLOURS = _list("red blue green black white grey yellow brown")
SIZES = ("small", "medium", "large")
BRANDS = _list("Norvik Halden Pinewood Brightway Castor Delphi Ostra Kestrel")

GOODS: dict[str, tuple[str, ...]] = {
    "kitchen": _list("kettle mug pan teapot bowl tray"),
    "clothing": _list("jacket scarf shirt hat gloves belt"),
    "office": _list("lamp chair folder notebook pen desk"),
    "garden": _list("rake bench hose lantern pot shovel"),
    "travel": _list("suitcase backpack umbrella blanket wallet bottle"),
}

SUBJECTS = _list(
    "budget picnic invoice holiday garden concert recipe printer lecture birthday meeting parcel contract survey "
    "workshop bicycle library garage orchard festival kitchen journal museum harbour"
)
REMARKS = (
    "I will send the details tomorrow.",
    "Please tell me what you think.",
    "The figures are in the usual folder.",
    "It went better than we expected.",
    "There is still some time left.",
    "Nobody has found a better way yet.",
    "We should talk about it soon.",
    "The first version is ready.",
)
PLACES = ("Room 1", "Room 2", "Room 3", "Town hall", "Cafe Lotus", "Main office", "Library", "Gallery")
BOARDS = ("Cooking", "Cycling", "Gardening", "Music", "Travel", "Photography")
RIVERS = _list("Alda Brene Corva Dusk Elbin Farrow Gelda Hesper")
TOWNS = _list(
    "Arlen Bristow Calder Dorning Eastby Fenwick Garrow Hollin Ivydale Jarrow Kelby Linton Marden Norham Orton Penrith"
)
TRADES = _list("glass wool timber paper silver salt cheese pottery")
