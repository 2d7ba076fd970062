"""Train a small Matryoshka model on a CPU, on texts of your own, and see what 64 numbers gain.

Needs: pip install 'nestvec[train]'
"""

import nestvec
from nestvec import stdlib_docs
from nestvec.datasets import Retrieval
from nestvec.training import Recipe, train


def titled() -> Retrieval:
    """Return the docstrings of the standard library: their first paragraphs ask for the rest."""
    texts, titles = {}, {}
    for document in stdlib_docs.documents(stdlib_docs.sources()):
        whole = "\n".join(passage.text for passage in document.passages)
        title, _, text = whole.partition(": ")[2].partition("\n\n")
        if len(text) > 100:
            titles[document.id], texts[document.id] = " ".join(title.split()), text
    return Retrieval("docstrings", texts, titles, {id: {id: 1} for id in texts})


def main() -> None:
    made = train("static", titled(), "my-model", Recipe(dims=(32, 64, 128), epochs=2))
    print(f"trained on {made.pairs:,} pairs; retrieval on {made.after.queries} that were held out:")
    print(f"before\n{made.before.table()}\nafter\n{made.after.table()}")
    before, after = (
        next(row.metrics["ndcg@10"] for row in measured.rows if row.dims == "64")
        for measured in (made.before, made.after)
    )
    print(f"nDCG@10 by 64 numbers: {before:.4f} -> {after:.4f}")

    with nestvec.connect("memory:", dims=(64,), embedder=made.embedder) as store:
        store.add(["Parse a date from a string.", "Insert into a sorted list."])
        print(store.search("read a date", k=1)[0].text)


if __name__ == "__main__":
    main()
