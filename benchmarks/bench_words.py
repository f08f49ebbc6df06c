"""Words and documents: quality, seconds and memory of ours and of the peers.

Compares word vectors with what people say about pairs of words, and features of documents with their classes:
AttentionWordVectors, AttentionEmbedding, PPMI and TF-IDF with an SVD, EDRep and gensim. Every method has a process of
its own.

Run ``python benchmarks/bench_words.py`` from the repository's root, on Linux with nothing else running: threads that
wait for each other get a hundred times slower otherwise.

Needs ``pip install -e ".[plot]" EDRep==0.1.2 gensim``; a peer that is not installed is left out.

Data: ``ATTNEMBED_DATA`` names the folder, which has wikitext2, word_similarity and r8.

Takes about 8 minutes on two cores; with ``--quick`` one seed and fewer methods, in less than two, printed only.

Writes ``benchmarks/bench_words.md``, ``doc/images/words_methods.png``.
"""

import json
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from _common import apart, fastest, loaders, measure, options, plain, protocols, save, write
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import row_norms
from threadpoolctl import threadpool_limits

from sklearn_attnembed import AttentionEmbedding, AttentionWordVectors
from sklearn_attnembed.affinity import cooccurrence

D, WINDOW, MIN_COUNT = 64, 5, 5
PAIRS = ["WS-353-ALL", "MEN-TR-3k", "RG-65", "MTurk-771", "SIMLEX-999"]
C_GRID, FOLDS = [1, 10, 100, 1000], 5
SEEDS = {1: "one seed", 3: "three seeds"}
RUNS = {1: 3, 5: 2}  # by how often the text is repeated


class Method(NamedTuple):
    """What is run, how it is drawn, what it needs, and whether it is given co-occurrences in place of documents."""

    label: str
    call: Callable
    color: str
    marker: str
    needs: str = "sklearn_attnembed"
    is_counted: bool = False


# word vectors: (documents or co-occurrences, seed) -> (vectors, row of each word) ----------------------
def attnembed(documents, seed, **params):
    """Ours, co-occurrence included."""
    model = AttentionWordVectors(D, n_jobs=2, random_state=seed, **params).fit(documents)
    return model.embedding_, model.vocabulary_


def second_part(near, seed):
    """The second part of ours, as AttentionWordVectors calls it."""
    whole = AttentionWordVectors()
    params = {"temperature": whole.temperature, "null_model": near.p0, "key_weight": "degree", "tol": whole.tol}
    model = AttentionEmbedding(D, affinity="precomputed", random_state=seed, n_jobs=2, **params).fit(near.affinity)
    return model.embedding_, near.vocabulary


def pmi_svd(near, seed, power):
    """SVD of shifted positive mutual information: O. Levy, Y. Goldberg, I. Dagan, TACL 2015, sections 3.1 and 3.3.

    Five negatives, contexts to the power 0.75. Vectors are left singular vectors times singular values to a power.
    """
    A = near.affinity.tocoo()
    words, contexts = A.sum(axis=1), A.sum(axis=0) ** 0.75
    i, j = A.coords
    information = np.log(A.data) - np.log(words[i] * (contexts / contexts.sum())[j]) - np.log(5)
    kept = information > 0
    svd = TruncatedSVD(D, random_state=seed)
    X = svd.fit_transform(sp.csr_array((information[kept], (i[kept], j[kept])), A.shape))
    return X * svd.singular_values_ ** (power - 1), near.vocabulary


def edrep(near, seed):
    """edrep at its own settings, given the same null model as ours."""
    from EDRep import CreateEmbedding

    np.random.seed(seed)
    P = sp.csr_matrix(normalize(near.affinity, "l1"))
    return CreateEmbedding([P], dim=D, p0=near.p0, verbose=False).X, near.vocabulary


def gensim_vectors(documents, seed, epochs=5, **params):
    """Skip-gram vectors as gensim's KeyedVectors."""
    from gensim.models import Word2Vec

    params |= {"vector_size": D, "window": WINDOW, "min_count": MIN_COUNT, "sg": 1, "negative": 5, "workers": 2}
    return Word2Vec(documents, epochs=epochs, seed=seed, **params).wv


def skip_gram(documents, seed, **params):
    """Skip-gram vectors and rows of words."""
    vectors = gensim_vectors(documents, seed, **params)
    return vectors.vectors, vectors.key_to_index


THIN = {"sample": 1e-5}
COOL = partial(attnembed, temperature=1 / 16)
WORDS = {
    "attnembed": Method("AttentionWordVectors", attnembed, "tab:red", "o"),
    "attnembed-cool": Method("AttentionWordVectors, temperature=1/16", COOL, "tab:orange", "^"),
    "pmi-svd": Method("PPMI + TruncatedSVD", partial(pmi_svd, power=1), "tab:cyan", "*", is_counted=True),
    "pmi-root": Method("PPMI + TruncatedSVD, roots", partial(pmi_svd, power=0.5), "tab:blue", "P", is_counted=True),
    "edrep": Method("edrep", edrep, "tab:purple", "D", "EDRep", is_counted=True),
    "gensim": Method("gensim, 5 epochs", skip_gram, "tab:green", "v", "gensim"),
    "gensim-thin": Method("gensim, 5 epochs, thinned", partial(skip_gram, **THIN), "tab:olive", "<", "gensim"),
    "gensim-20": Method("gensim, 20 epochs", partial(skip_gram, epochs=20), "darkgreen", ">", "gensim"),
    "gensim-20-thin": Method(
        "gensim, 20 epochs, thinned", partial(skip_gram, epochs=20, **THIN), "yellowgreen", "s", "gensim"
    ),
}
SECOND_PARTS = {"attnembed": second_part, "pmi-root": WORDS["pmi-root"].call, "edrep": edrep}


def wikitext():
    """Lists of lower-cased words, one for each line of WikiText-2 that has any."""
    text = " ".join(loaders().wikitext2().tokens).lower()
    return [words for line in text.split("<eos>") if (words := line.split())]


def count(documents):
    """Co-occurrences as AttentionWordVectors has them."""
    return cooccurrence(documents, WINDOW, min_count=MIN_COUNT, n_jobs=2)


def child_words(name, n_seeds):
    """Seconds and quality by seed."""
    documents, method = wikitext(), WORDS[name]
    pairs = {on: loaders().word_similarity(on) for on in PAIRS}

    def run(documents, seed):
        return method.call(count(documents) if method.is_counted else documents, seed)

    run(documents[:300], 0)  # imports and compiles
    for seed in range(n_seeds):
        (X, vocabulary), seconds, _ = measure(partial(run, documents, seed))
        scores = [protocols().word_similarity(X, vocabulary, on.pairs, on.score) for on in pairs.values()]
        yield {"seconds": seconds, "quality": [score for score, _ in scores], "covered": [n for _, n in scores]}


def child_parts(name, n_seeds):
    """Seconds and peak of what comes after the co-occurrences."""
    documents, method = wikitext(), SECOND_PARTS[name]
    method(count(documents[:300]), 0)
    near = count(documents)
    for seed in range(n_seeds):
        _, seconds, peak = measure(partial(method, near, seed))
        yield {"seconds": seconds, "peak": peak}


def child_counting(kind, times):
    """Seconds and peak of the co-occurrences of a text that is repeated, and what comes of it."""
    documents = wikitext()
    n_tokens = times * sum(map(len, documents))
    if kind == "strings":
        documents = [" ".join(words) for words in documents]
    count(documents[:300])
    for _ in range(RUNS[times]):
        stream = chain.from_iterable(repeat(documents, times))
        near, seconds, peak = measure(partial(count, stream))
        sizes = {"tokens": n_tokens, "words": len(near.counts), "nnz": near.affinity.nnz}
        yield {"seconds": seconds, "peak": peak, **sizes}


# features of documents: (texts to fit, new texts, seed) -> features of both ----------------------------
def scikit_learn(fitted, new, seed, steps):
    """Of a pipeline."""
    model = make_pipeline(*(step(seed) for step in steps))
    return model.fit_transform(fitted), model.transform(new)


def split(texts):
    """Words as scikit-learn has them."""
    return list(map(CountVectorizer().build_analyzer(), texts))


def mean_vectors(fitted, new, seed, **params):
    """Mean skip-gram vectors of the words."""
    fitted, new = split(fitted), split(new)
    vectors = gensim_vectors(fitted, seed, **params)
    return tuple(np.stack([vectors.get_mean_vector(words) for words in texts]) for texts in (fitted, new))


def doc2vec(fitted, new, seed):
    """Doc2Vec, new documents inferred."""
    from gensim.models.doc2vec import Doc2Vec, TaggedDocument

    documents = [TaggedDocument(words, [row]) for row, words in enumerate(split(fitted))]
    model = Doc2Vec(documents, vector_size=D, epochs=20, min_count=MIN_COUNT, workers=2, seed=seed)
    return model.dv.vectors, np.stack([model.infer_vector(words) for words in split(new)])


def counts(seed):
    """Step of a pipeline."""
    return CountVectorizer()


def tfidf(seed):
    """Step of a pipeline."""
    return TfidfVectorizer(sublinear_tf=True)


def svd(seed):
    """Step of a pipeline."""
    return TruncatedSVD(D, random_state=seed)


def two_sided(seed):
    """Step of a pipeline: documents and words together."""
    return AttentionEmbedding(D, affinity="bipartite", random_state=seed, n_jobs=2)


def word_vectors(seed):
    """Step of a pipeline: mean word vectors."""
    return AttentionWordVectors(D, random_state=seed, n_jobs=2)


def of(*steps):
    """Features of a pipeline of such steps."""
    return partial(scikit_learn, steps=steps)


FEATURES = {
    "tfidf": Method("TF-IDF, all columns", of(tfidf), "tab:gray", "h"),
    "lsa": Method("TF-IDF + TruncatedSVD", of(tfidf, svd), "tab:blue", "P"),
    "words": Method("AttentionWordVectors", of(word_vectors), "tab:red", "o"),
    "counts": Method("counts + AttentionEmbedding", of(counts, two_sided), "darkred", "s"),
    "tfidf-ours": Method("TF-IDF + AttentionEmbedding", of(tfidf, two_sided), "tab:orange", "^"),
    "gensim": Method("gensim, 5 epochs, mean", mean_vectors, "tab:green", "v", "gensim"),
    "gensim-20": Method("gensim, 20 epochs, mean", partial(mean_vectors, epochs=20), "darkgreen", ">", "gensim"),
    "doc2vec": Method("gensim, Doc2Vec", doc2vec, "tab:olive", "<", "gensim"),
}


def child_features(name, n_seeds):
    """Seconds and test accuracy in percent, by seed."""
    data, call = loaders().r8(), FEATURES[name].call
    is_fitted = np.array(data.split) == "train"
    texts = np.array(data.texts, object)
    fitted, new, y, y_new = list(texts[is_fitted]), list(texts[~is_fitted]), data.y[is_fitted], data.y[~is_fitted]
    call(fitted[:300], new[:10], 0)  # imports and compiles
    runs = [measure(partial(call, fitted, new, seed)) for seed in range(n_seeds)]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(LogisticRegression(max_iter=3000), {"C": C_GRID}, cv=folds)
    for (X, X_new), seconds, _ in runs:
        scale = row_norms(X).mean()
        with threadpool_limits(1):
            models = [model.fit(X / scale, y) for model in (search, LogisticRegression())]
            tuned, plain = (100 * model.score(X_new / scale, y_new) for model in models)
        yield {"seconds": seconds, "tuned": tuned, "plain": plain, "C": search.best_params_["C"]}


# tables ------------------------------------------------------------------------------------------------
def ask(kind, name, number):
    """Runs of a method, in a process of its own."""
    return apart(__file__, kind, name, number)


def least(runs):
    """Seconds of the fastest run."""
    return min(run["seconds"] for run in runs)


def mean(runs, key):
    """Mean over seeds."""
    return np.mean([run[key] for run in runs], axis=0)


def score(values):
    """Cells of correlations, in percent."""
    return [f"{100 * value:.1f}" for value in values]


def words_section(found, n_seeds):
    """A row per method, the best mean first."""
    found = dict(sorted(found.items(), key=lambda item: -mean(item[1], "quality").mean()))
    quality = np.array([mean(runs, "quality") for runs in found.values()])
    columns = [[WORDS[name].label for name in found], fastest([least(runs) for runs in found.values()])]
    columns += [score(column) for column in (*quality.T, quality.mean(axis=1))]
    covered = ", ".join(f"{on} {n:,}" for on, n in zip(PAIRS, found["attnembed"][0]["covered"], strict=True))
    text = (
        f"WikiText-2, 2.05 million words in 23,767 lines, lower-cased. All: {D} dimensions, window {WINDOW}, words "
        f"that occur {MIN_COUNT} times. Figures are 100 times Spearman's correlation of cosines with what people say, "
        f"mean of {SEEDS[n_seeds]}, over the pairs whose words are both there ({covered}); ordered by their mean. "
        "Seconds are from lists of words to vectors, the best of the seeds, after a warm-up on 300 lines. "
        "AttentionWordVectors has its defaults but for what is named. PPMI + TruncatedSVD and edrep are given the same "
        "co-occurrences, thinned, their seconds included: mutual information shifted by log 5, contexts to the power "
        "0.75, and, for roots, singular values to the power 1/2 as Levy et al. advise; edrep 30 epochs with the same "
        "null model. "
        "gensim is skip-gram with 5 negatives, thinned with sample=1e-5 instead of 1e-3; two workers are not "
        "reproducible to the bit. No figure is bold: the standard error of a correlation over so many pairs is 2 "
        "points on the largest set and above 10 on the smallest."
    )
    return "Word vectors", text, ["method", "seconds", *PAIRS, "mean"], list(zip(*columns, strict=True))


def versus_section(found):
    """Ours against every peer: a row for each."""
    ours, rows = found["attnembed"], []
    for name, runs in found.items():
        if not name.startswith("attnembed"):
            a, b = mean(ours, "quality"), mean(runs, "quality")
            seconds = fastest([least(ours), least(runs)])
            won, ratio = f"{(a > b).sum()} of {len(PAIRS)}", plain(least(runs) / least(ours))
            means = score([a.mean(), b.mean()])
            rows.append([WORDS[name].label, *means, f"{100 * (a.mean() - b.mean()):+.1f}", won, *seconds, ratio])
    header = ["rival", "our mean", "rival's", "difference", "sets won", "our s", "rival's s", "times as fast"]
    text = "The same figures side by side, for AttentionWordVectors with its defaults."
    return "Against gensim, edrep and the SVD", text, header, rows


def parts_section(names, n_seeds):
    """Seconds and peak of counting, and of what makes vectors of the counts."""
    counting = ask("counting", "lists", 1)
    found = {"co-occurrence": counting} | {f"then {WORDS[name].label}": ask("parts", name, n_seeds) for name in names}
    rows = [[label, plain(least(runs), 3), f"{runs[0]['peak']:.0f}"] for label, runs in found.items()]
    text = f"Of the methods on co-occurrences, {counting[0]['words']:,} words with {counting[0]['nnz']:,} non-zeros."
    return "The parts", text, ["part", "seconds", "peak MB"], rows


def counting_section(repeats):
    """A row per length and kind of the text."""
    rows = []
    for times in repeats:
        for kind in ("lists", "strings"):
            runs = ask("counting", kind, times)
            first = runs[0]
            speed = f"{first['tokens'] / least(runs) / 1e6:.2f}"
            sizes = [f"{first['words']:,}", f"{first['nnz']:,}", f"{8 * first['nnz'] / 1e6:.0f}"]
            rows.append([f"{first['tokens']:,}", kind, plain(least(runs), 3), speed, f"{first['peak']:.0f}", *sizes])
    header = ["words", "documents are", "seconds", "million words a second", "peak MB", "words kept", "non-zeros"]
    text = (
        "`affinity.cooccurrence`, window 5, two threads; the text five times over comes through a generator. Strings "
        "are cut by scikit-learn's analyzer, which drops punctuation and single letters. Peak MB are beyond what was "
        "resident before; the result takes 8 bytes for each non-zero."
    )
    return "Counting", text, [*header, "result MB"], rows


def features_section(found, n_seeds):
    """A row per method, the most accurate first."""
    found = dict(sorted(found.items(), key=lambda item: -mean(item[1], "tuned")))
    columns = [[FEATURES[name].label for name in found], fastest([least(runs) for runs in found.values()])]
    for key in ("tuned", "plain"):
        columns.append([f"{mean(runs, key):.1f}" for runs in found.values()])
    columns.append([", ".join(map(str, sorted({run["C"] for run in runs}))) for runs in found.values()])
    text = (
        f"R8, 5,485 training and 2,189 test documents, 8 classes; {D} features unless all columns. Test accuracy of "
        "logistic regression in percent, features divided by the mean row norm of the training part; C is chosen from "
        f"{', '.join(map(str, C_GRID))} in {FOLDS} folds of the training part, or is 1, the default. Mean of "
        f"{SEEDS[n_seeds]}. Seconds are from texts to features of both parts, the best of the seeds. Features are "
        "learned from the training part alone. TF-IDF is sublinear; our parameters are defaults; gensim: skip-gram as "
        "above, Doc2Vec 20 epochs, test documents inferred. The standard error over so many documents is about 0.4."
    )
    header = ["features", "seconds", "accuracy, C chosen", "accuracy, C = 1", "C chosen"]
    return "Documents", text, header, list(zip(*columns, strict=True))


# picture -----------------------------------------------------------------------------------------------
def picture(words, features, is_whole):
    """Quality against seconds: of words and of documents."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, axes = plt.subplots(2, 1, figsize=(9.5, 8), layout="constrained")
    panels = {
        "mean Spearman x 100, five sets": (WORDS, words, lambda runs: 100 * mean(runs, "quality").mean()),
        "test accuracy, percent, C chosen": (FEATURES, features, lambda runs: mean(runs, "tuned")),
    }
    titles = ("Word vectors, WikiText-2", "Features of documents, R8")
    for ax, title, (ylabel, (methods, found, quality)) in zip(axes, titles, panels.items(), strict=True):
        for name, runs in found.items():
            label, _, color, marker, *_ = methods[name]
            ax.scatter(least(runs), quality(runs), 90, color, marker=marker, alpha=0.85, edgecolors="none", label=label)
        ax.set(xscale="log", xlabel="seconds", ylabel=ylabel, title=title)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        ax.grid(alpha=0.3)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, "words_methods", is_whole)


# everything --------------------------------------------------------------------------------------------
def installed(methods, names):
    """Those of the methods that can be run; the others are named."""
    for name in names:
        if find_spec(methods[name].needs) is None:
            print(f"{methods[name].label} is left out: {methods[name].needs} is not installed", file=sys.stderr)
        else:
            yield name


def main():
    """Everything."""
    if sys.argv[1:2] == ["--child"]:
        warnings.simplefilter("ignore")
        children = {"words": child_words, "parts": child_parts, "counting": child_counting, "features": child_features}
        kind, name, number = sys.argv[2:]
        return print(json.dumps(list(children[kind](name, int(number)))))
    quick = options(__doc__).parse_args().quick
    n_seeds, repeats = (1, [1]) if quick else (3, RUNS)
    words = list(installed(WORDS, ["attnembed", "pmi-root", "gensim"] if quick else WORDS))
    features = list(installed(FEATURES, ["tfidf", "lsa", "words", "counts"] if quick else FEATURES))
    found = {name: ask("words", name, n_seeds) for name in words}
    found_features = {name: ask("features", name, n_seeds) for name in features}
    sections = [
        words_section(found, n_seeds),
        versus_section(found),
        parts_section([name for name in SECOND_PARTS if name in words], n_seeds),
        counting_section(repeats),
        features_section(found_features, n_seeds),
    ]
    picture(found, found_features, not quick)
    title = "Words and documents: quality, seconds and memory"
    write("bench_words", title, sections, not quick, peers=["EDRep", "gensim"])


if __name__ == "__main__":
    main()
