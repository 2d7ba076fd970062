"""Store a dozen sentences in Edge, search them, filter, and look into the funnel."""

import sys
import tempfile

import nestvec
from nestvec import F

ANIMALS = [
    ("the blue whale is the largest animal that ever lived", "mammal", 80),
    ("bats find their way in the dark by listening to echoes", "mammal", 20),
    ("a cat sleeps two thirds of its life", "mammal", 15),
    ("elephants mourn their dead", "mammal", 60),
    ("the arctic tern flies from pole to pole and back each year", "bird", 30),
    ("owls turn their heads almost all the way round", "bird", 12),
    ("a hummingbird's heart beats a thousand times a minute", "bird", 4),
    ("penguins cannot fly, but swim faster than any other bird", "bird", 20),
    ("salmon return to the river where they were born", "fish", 6),
    ("sharks were there before the first trees", "fish", 30),
    ("an octopus has three hearts and blue blood", "mollusc", 2),
    ("a snail can sleep for three years", "mollusc", 5),
]

folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
with nestvec.connect(f"edge:{folder}", dims=(64, 128), embedder="static") as store:
    texts, kinds, years = zip(*ANIMALS, strict=True)
    metadatas = [{"kind": kind, "years": age} for kind, age in zip(kinds, years, strict=True)]
    store.add(texts, metadatas=metadatas, ids=[f"animal-{n}" for n in range(len(texts))])

    print("around the world:", store.search("which animal flies around the world?", k=1)[0].text)
    old = store.search("sleep", k=2, where=(F("kind") == "mammal") & (F("years") < 50))
    print("sleeping mammals that live less than 50 years:", [hit.text for hit in old])

    trace = store.explain("life in the sea", k=3, funnel="64:8")
    for stage in trace.stages:
        print(f"{stage.field}: {stage.candidates_in} in, {stage.candidates_out} out")
    if trace.overlap is not None:  # a server may allow no exact search
        print(f"overlap with exact search: {trace.overlap:.0%}")
