"""The tables on the first page of the benchmarks, from the result tables of the scripts.

Run: ``python doc/benchmarks/summary.py`` after any of the scripts in ``benchmarks``. Writes ``glance.csv``,
``others_win.csv`` (quality) and ``others_win_cost.csv`` (seconds, memory, steps) beside itself, in a second. A figure
wins by its printed digits, however small the difference, but for the quality of graphs, whose page tests it.
"""

import csv
import math
import re
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parents[1] / "benchmarks"
PAGES = {
    "embedding": "Graphs",
    "links": "Links",
    "speed": "Graphs, cost",
    "normalizer": "Normalisers",
    "words": "Words and texts",
    "bipartite": "Recommendations",
    "temporal": "Contacts in time",
    "features": "Points with features",
    "attention": "Attention in PyTorch",
    "autoregression": "Sequences",
    "expressive": "Expressive attention",
    "foundation": "Defaults",
}


class Contest(NamedTuple):
    """One measure of one job: a figure of ours and those of the rivals, as printed."""

    page: str
    what: str
    name: str
    ours: str
    rivals: dict
    is_lower_better: bool
    verdict: str | None = None  # "ours", "rival" or "alike" where the page says it

    def rank(self, text):
        """Smaller is better; what has no figure is last."""
        figure = number(text)
        if figure is None:
            return math.inf
        return figure if self.is_lower_better else -figure

    def is_cost(self):
        """Whether it is about seconds, memory or steps."""
        return self.what.endswith(("seconds", " queries", " ms", "MB", "GB", "steps"))

    def best(self):
        """The best rival's name, or none if none has a figure."""
        return min(self.rivals, key=lambda rival: self.rank(self.rivals[rival]), default=None)

    def ahead(self):
        """Rivals that are better than ours, the best first."""
        ahead = [name for name, text in self.rivals.items() if self.rank(text) < self.rank(self.ours)]
        return sorted(ahead, key=lambda name: self.rank(self.rivals[name]))

    def winner(self):
        """Which of both is ahead."""
        if self.verdict:
            return self.verdict
        best = self.best()
        if best is not None and self.rank(self.rivals[best]) == self.rank(self.ours):
            return "alike"
        return "rival" if self.ahead() else "ours"


# reading ---------------------------------------------------------------------------------------------
def number(text):
    """The first number of a cell."""
    found = re.match(r"[-+]?[\d.]+(e[-+]?\d+)?", text.replace(",", ""))
    return float(found[0]) if found else None


def tables(name):
    """Rows, as dicts, of the tables of a result file, by heading."""
    found, heading, header = {}, "", None
    for line in (RESULTS / f"bench_{name}.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip().replace("**", "") for cell in line.removeprefix("|").removesuffix("|").split("|")]
        if header is None:
            header, found[heading] = cells, []
        elif set("".join(cells)) != set("- ") and set("".join(cells)) != {"-"}:
            found[heading].append(dict(zip(header, cells, strict=True)))
    return found


def by_rows(page, what, rows, column, ours, lower, label="method", part=0, is_ours=None):
    """A contest between rows."""
    is_ours = is_ours or (lambda name: "Attention" in name)
    cells = {row[label]: [*row[column].split(", "), ""][part] for row in rows}
    rivals = {name: text for name, text in cells.items() if not is_ours(name) and number(text) is not None}
    return Contest(page, what, ours, cells[ours], rivals, lower)


def by_columns(page, what, row, ours, rivals, lower, suffix=""):
    """A contest between columns of a row."""
    found = {name: row[name + suffix] for name in rivals if number(row.get(name + suffix, "")) is not None}
    return Contest(page, what, ours, row[ours + suffix], found, lower)


def groups(rows, column):
    """Rows by what is in a column."""
    found = {}
    for row in rows:
        found.setdefault(row[column], []).append(row)
    return found.items()


# the contests of each job ----------------------------------------------------------------------------
def of_embedding():
    """Graphs."""
    found, ours = tables("embedding"), "AttentionEmbedding"
    words = {"ahead": "ours", "behind": "rival", "alike": "alike"}
    best = {(row["graph"], row["measure"]): row for row in found["Against the best rival, d = 128"]}
    for graph, rows in groups(found["Quality, d = 128"], "graph"):
        for column in list(rows[0])[2:]:
            if any(number(row[column]) is not None for row in rows):
                contest = by_rows("embedding", f"{graph}, d = 128: {column}", rows, column, ours, False)
                tested = best.get((graph, column))
                yield contest._replace(verdict=words[tested["ours is"]] if tested else None)


def of_links():
    """Links left out of graphs."""
    ours = "AttentionEmbedding.score_links"
    for graph, rows in groups(tables("links")["Links left out"], "graph"):
        for column in ("AUC", "average precision"):
            yield by_rows("links", f"{graph}: {column} of links left out", rows, column, ours, False)


def of_speed():
    """Seconds and memory of graphs."""
    found, ours = tables("speed"), "AttentionEmbedding"
    for d in (128, 32):
        for graph, rows in groups(found[f"Seconds and memory, d = {d}"], "graph"):
            for column in ("seconds", "peak MB"):
                yield by_rows("speed", f"{graph}, d = {d}: {column}", rows, column, ours, True)
    for part, unit in enumerate(("seconds", "peak GB")):
        for size in list(found["Growth"][0])[1:]:
            yield by_rows("speed", f"{size}, d = 128: {unit}", found["Growth"], size, ours, True, part=part)


def of_normalizer():
    """Each rival against the best method of ours, sums aside, that takes no more seconds."""

    def seconds(row):
        return (number(row["fit s"]) or 0) + (number(row["score s"]) or 0)

    found = tables("normalizer")
    for norms in ("Mean norm 1", "Unit norms"):
        for (queries, temperature), rows in groups(
            [{**row, "where": (row["queries"], row["temperature"])} for row in found[norms]], "where"
        ):
            rivals = [row for row in rows if row["method"].startswith(("random_", "positive_", "edrep"))]
            for rival in rivals:
                for column in ("median", "95 %", "max"):
                    what = f"log Z, {norms.lower()}, queries {queries}, temperature {temperature}"
                    what += f": relative error, {column}"
                    ours = [row for row in rows if row not in rivals and row["method"] != "exact"]
                    ours = [row for row in ours if seconds(row) <= seconds(rival)] or ours
                    best = min((number(row[column]), row["method"], row) for row in ours)[2]
                    cells = [f"{row[column]}, {seconds(row):.2f} s" for row in (best, rival)]
                    name = rival["method"].split(", scale")[0]
                    yield Contest("normalizer", what, best["method"], cells[0], {name: cells[1]}, True)
    rivals = {"random_fourier", "positive_features"}
    memory = found["Memory"]
    what = "log Z, unit norms, temperature 1/5: peak MB"
    yield by_rows("normalizer", what, memory, "MB", "gaussian", True, is_ours=lambda name: name not in rivals)


def of_words():
    """Word vectors and documents."""
    found, ours = tables("words"), "AttentionWordVectors"
    for column in list(found["Word vectors"][0])[1:]:
        what = f"WikiText-2, {'mean of the five sets' if column == 'mean' else column}"
        yield by_rows("words", what, found["Word vectors"], column, ours, column == "seconds")
    parts = [row for row in found["The parts"] if row["part"].startswith("then ")]
    for column in ("seconds", "peak MB"):
        what = f"WikiText-2, from co-occurrences: {column}"
        yield by_rows("words", what, parts, column, f"then {ours}", True, label="part")
    for ours in ("counts + AttentionEmbedding", "AttentionWordVectors", "TF-IDF + AttentionEmbedding"):
        for column in ("accuracy, C chosen", "accuracy, C = 1", "seconds"):
            what = f"R8 documents: {column}"
            yield by_rows("words", what, found["Documents"], column, ours, column == "seconds", label="features")


def of_bipartite():
    """Users and items, documents and words."""
    found = tables("bipartite")
    for ours in ("AttentionRecommender", "AttentionRecommender, item_share=0"):
        for name in ("Gowalla", "Last.fm", "MovieLens-100k"):
            for column in ("recall", "NDCG", "few", "unseen", "seconds", "MB"):
                what = f"{name}{', users with few items' if column == 'few' else ''}: {column}"
                yield by_rows("bipartite", what, found[name], column, ours, column in ("seconds", "MB"))
        for size in list(found["Growth"][0])[2:]:
            for part, unit in enumerate(("seconds", "peak MB")):
                yield by_rows("bipartite", f"{size} entries: {unit}", found["Growth"], size, ours, True, part=part)
    for column in list(found["Documents and words"][0])[1:]:
        rows, is_cost = found["Documents and words"], column.endswith("seconds")
        yield by_rows("bipartite", column, rows, column, "AttentionRecommender", is_cost)


def of_temporal():
    """Communities and forecasts."""
    found, ours = tables("temporal"), "AttentionEmbedding"
    for graph in ("aggregated", "temporal, 1800 s, both"):
        rows = [row for row in found["Communities"] if row["graph"] == graph]
        for column in ("mean NMI", "worst NMI", "seconds"):
            what = f"communities, {graph}: {column}"
            yield by_rows("temporal", what, rows, column, ours, column == "seconds")
    for ours in ("temporal, both", "temporal, forward"):
        for column in list(found["Forecasts"][0])[1:]:
            what = f"forecast, {column} pairs: AUC".replace("met pairs", "met")
            yield by_rows("temporal", what, found["Forecasts"], column, ours, False, is_ours=is_vectors)


def is_vectors(name):
    """Whether a forecast is by vectors of ours."""
    return name.startswith(("temporal", "aggregated"))


def of_features():
    """Points."""
    for data, rows in groups(tables("features")["Held-out points"], "data"):
        for ours in ("AttentionEmbedding, n_neighbors=36", "AttentionEmbedding"):
            for column in ("kNN", "LR, standardised", "LR, C = 100", "seconds"):
                yield by_rows("features", f"{data}: {column}", rows, column, ours, column == "seconds")
        ours = "AttentionEmbedding, n_neighbors=36"
        for column in ("kNN", "seconds"):
            rivals = [row for row in rows if row["method"] in {"UMAP", ours}]
            what = f"{data}, against UMAP: {column}"
            yield by_rows("features", what, rivals, column, ours, column == "seconds")


def of_attention():
    """PyTorch."""
    found = tables("attention")
    for heading, rows in found.items():
        for row in rows if heading.startswith("On the ") else ():
            keys = "" if row["keys"] == "all" else f", {row['keys']}"
            what = f"{heading.removeprefix('On the ')}, length {row['length']}{keys}, {row['pass']}"
            rivals = ("dot", "plain", "fused dot")
            yield by_columns("attention", f"{what}: ms", row, "expressive", rivals, True, " ms")
            yield by_columns("attention", f"{what}: peak MB", row, "expressive", rivals, True, " MB")
    for row in found["FlexAttention, compiled"]:
        if not row["flex ms"]:  # not compiled
            continue
        what = f"FlexAttention, {row['device']}, length {row['length']}: ms"
        yield by_columns("attention", what, row, "flex", ("dot", "fused dot"), True, " ms")
    for row in found["Squared attention, causal, in linear time"]:
        what = f"squared, {row['dimensions']} dimensions, length {row['length']}, {row['pass']}"
        for unit in ("ms", "MB"):
            yield by_columns("attention", f"{what}: {unit}", row, "linear", ("quadratic",), True, f" {unit}")


def of_autoregression():
    """Accuracy of expressive (EA) against dot-product attention (DPA)."""
    for heading, rows in tables("autoregression").items():
        before = ""
        for row in rows if "DPA" in rows[0] else ():
            variant = row.get("variant", "")
            before = before if variant.startswith("same") else variant
            how = row.get("optimiser") or row.get("protocol") or heading
            parts = [f"base {row['base']}", f"delay {row['delay']}", how]
            if heading.startswith("The better"):
                parts[-1] += ", the better protocol"
            elif heading.startswith("Four"):
                parts.append("6000 steps")
            elif variant:
                parts.append(variant.replace("same", before))
            cells = {name: row[name].split(" [")[0] for name in ("DPA", "EA")}
            yield by_columns("autoregression", f"{', '.join(parts)}: accuracy", cells, "EA", ("DPA",), False)
            if heading.startswith("The better") and row["EA steps"] and row["DPA steps"]:
                cells = {name: row[f"{name} steps"] for name in ("DPA", "EA")}
                yield by_columns("autoregression", f"{', '.join(parts)}: steps", cells, "EA", ("DPA",), True)


def of_expressive():
    """Output and links, against a sample of the keys and the softmax kernel."""
    found = tables("expressive")
    rows = [row for heading, rows in found.items() if heading.startswith("Output") for row in rows]
    for row in rows:
        row["where"] = f"output, {row['kernel']}, temperature {row['temperature']}, values {row['values']}"
    for where, block in groups([row for row in rows if row["method"] != "exact"], "where"):
        for column in list(block[0])[4:7]:
            what, ours = f"{where}: {column}", "gaussian, 1 cluster"
            yield by_rows("expressive", what, block, column, ours, True, is_ours=lambda name: "gaussian" in name)
    for heading, what in (("Links between", "links of a graph"), ("The same between", "links of a table")):
        rows = next(rows for name, rows in found.items() if name.startswith(heading))
        for row in rows:
            row["who"] = f"{row['kernel']}, d = {row['dimensions']}" if row["dimensions"] else row["kernel"]
        ours = next(row["who"] for row in rows if row["kernel"] == "expressive")
        for column, unit in (("KL divergence, mean [of three graphs]", "divergence from the truth"), ("seconds",) * 2):
            cells = [{**row, column: row[column].split(" [")[0]} for row in rows]
            yield by_rows("expressive", f"{what}: {unit}", cells, column, ours, True, label="who", is_ours=ours.__eq__)


def of_foundation():
    """An iteration against the sparse product that is in it."""
    for row in tables("foundation")["Cost of an iteration"]:
        what = f"200,000 nodes, {row['threads']} threads: seconds".replace("1 threads", "1 thread")
        yield by_columns("foundation", what, row, "iteration", ("product",), True)


# the tables ------------------------------------------------------------------------------------------
GLANCE = {
    "embedding": [
        "ppi, d = 128: micro-F1, 50 %",
        "cora, d = 128: micro-F1, 50 %",
        "lastfm_asia, d = 128: micro-F1, 50 %",
        "email_eu_core, d = 128: micro-F1, 50 %",
        "words, d = 128: micro-F1, 50 %",
        "words_r8, d = 128: micro-F1, 50 %",
        "amazon, d = 128: NMI",
    ],
    "links": [f"{graph}: AUC of links left out" for graph in ("ppi", "cora", "lastfm_asia", "email_directed")],
    "speed": [
        "lastfm_asia, d = 128: seconds",
        "lastfm_asia, d = 128: peak MB",
        "block-50k, d = 128: seconds",
        "block-1M, d = 128: seconds",
    ],
    "normalizer": [
        "log Z, mean norm 1, queries set, temperature 1: relative error, median",
        "log Z, mean norm 1, queries set, temperature 1/10: relative error, median",
        "log Z, unit norms, temperature 1/5: peak MB",
    ],
    "words": [
        "WikiText-2, mean of the five sets",
        "WikiText-2, MTurk-771",
        "WikiText-2, seconds",
        "R8 documents: accuracy, C chosen",
    ],
    "bipartite": [
        "Gowalla: recall",
        "Last.fm: recall",
        "MovieLens-100k: recall",
        "Gowalla: seconds",
        "R8: recall",
        "100,000 x 20,000, 4.5M entries: seconds",
        "100,000 x 20,000, 4.5M entries: peak MB",
    ],
    "temporal": [
        "communities, aggregated: mean NMI",
        "communities, temporal, 1800 s, both: mean NMI",
        "forecast, 600 s, all pairs: AUC",
    ],
    "features": [f"{data}: {m}" for data in ("digits", "COIL-20", "ISOLET") for m in ("kNN", "LR, standardised")]
    + ["ISOLET: seconds", "ISOLET, against UMAP: kNN", "ISOLET, against UMAP: seconds"],
    "attention": [
        "CPU, length 128, causal, forward + backward: ms",
        "CPU, length 8192, forward + backward: ms",
        "CPU, length 8192, forward + backward: peak MB",
        "squared, 16 dimensions, length 1024, forward: ms",
        "squared, 16 dimensions, length 16384, forward: ms",
    ],
    "autoregression": [
        f"base {base}, delay 15, {optimiser}, the better protocol: accuracy"
        for optimiser in ("SGD", "Adam")
        for base in (4, 16)
    ],
    "expressive": [
        "output, expressive, temperature 1.0, values of the words: error of output",
        "links of a graph: divergence from the truth",
        "links of a graph: seconds",
    ],
    "foundation": ["200,000 nodes, 1 thread: seconds", "200,000 nodes, 2 threads: seconds"],
}


def figure(name, text):
    """A figure and whose it is."""
    return f"{text} ({name})"


def glance(contests):
    """The chosen contests: the first of ours, and against the best rival."""
    for page, chosen in GLANCE.items():
        for what in chosen:
            found = [contest for contest in contests if contest.page == page and contest.what == what]
            names = {contest.name for contest in found if page != "normalizer"}
            if len(names) > 1:  # several rows of ours: the first that is named
                found = found[:1]
            if not found:
                raise KeyError(f"{page}: no figure for {what!r}")
            contest = min(found, key=lambda c: c.rank(c.rivals[c.best()]) if c.rivals else 0)
            best, winner = contest.best(), contest.winner()
            ours = figure(contest.name, contest.ours)
            rival = figure(best, contest.rivals[best]) if best else "none within the limit"
            yield f":doc:`{PAGES[page]} <{page}>`", what, ours, rival, winner


def others_win(contests, is_cost):
    """Every contest, of cost or of quality, in which some rival is ahead."""
    for contest in contests:
        if contest.ahead() and contest.is_cost() == is_cost:
            theirs = "; ".join(figure(name, contest.rivals[name]) for name in contest.ahead())
            yield f":doc:`{PAGES[contest.page]} <{contest.page}>`", contest.what, theirs, figure(*contest[2:4])


def main():
    """Write the tables."""
    jobs = [globals()[f"of_{page}"] for page in PAGES]
    contests = [contest for job in jobs for contest in job()]
    written = {"glance": glance(contests)}
    written |= {"others_win": others_win(contests, False), "others_win_cost": others_win(contests, True)}
    for name, rows in written.items():
        with open(HERE / f"{name}.csv", "w", newline="", encoding="utf8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    won = sum(bool(contest.ahead()) for contest in contests)
    print(f"{len(contests)} comparisons; in {won} a rival is ahead")


if __name__ == "__main__":
    main()
