"""What a notebook shows: every parameter with a link that leads to it in our docs."""

import html
import inspect
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from sklearn.pipeline import make_pipeline

from sklearn_attnembed import (
    AttentionEmbedding,
    AttentionRecommender,
    AttentionWordVectors,
    ExpressiveKernel,
    NormalizerEstimator,
)
from sklearn_attnembed.datasets import make_block_model

ESTIMATORS = [AttentionEmbedding, AttentionRecommender, AttentionWordVectors, ExpressiveKernel, NormalizerEstimator]


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_every_parameter_links_to_its_place_in_our_docs(Estimator):
    shown = Estimator()._repr_html_()
    page = f"generated/sklearn_attnembed.{Estimator.__name__}.html"
    links = dict(re.findall(rf'href="[^"]*/{re.escape(page)}#:~:text=(\w+),-([^"]*)"', shown))
    assert set(links) == set(Estimator().get_params())
    lines = inspect.getdoc(Estimator).replace("`", "").splitlines()  # Python 3.13 has taken the indentation away
    for name, kind in links.items():  # a browser looks for both texts, in one line of the page
        assert f"{name} : {unquote(html.unescape(kind))}" in lines, name


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_the_linked_page_is_built_from_the_reference(Estimator):
    reference = Path(__file__).parents[1] / "doc" / "api.rst"
    assert f"   {Estimator.__name__}\n" in reference.read_text(encoding="utf8")


def test_parameters_that_were_set_stand_out_also_in_a_pipeline():
    shown = make_pipeline(AttentionEmbedding(16, temperature=0.5), ExpressiveKernel())._repr_html_()
    rows = re.findall(r'<tr class="(user-set|default)">.*?<td class="value">(.*?)</td>', shown, re.DOTALL)
    steps, *values = [value.strip() for kind, value in rows if kind == "user-set"]
    assert "attentionembedding" in steps
    assert values == ["16", "0.5"]
    assert shown.count("sklearn_attnembed.AttentionEmbedding.html") > 20


def test_progress_bar_of_scikit_learn(capsys):
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")
    pytest.importorskip("rich", reason="scikit-learn's progress bars need rich")
    model = AttentionEmbedding(4, affinity="precomputed", max_iter=20, tol=0, random_state=0)
    model.set_callbacks(callback.ProgressBar()).fit(make_block_model(100, 2, mean_degree=20, random_state=0)[0])
    assert re.search(r"AttentionEmbedding - fit .* 100%", capsys.readouterr().out)
