"""Sphinx configuration."""

import runpy
from pathlib import Path

from docutils.nodes import reference

import sklearn_attnembed

project = "sklearn-attnembed"
author = "The sklearn-attnembed developers"
copyright = f"2026, {author}"
version = release = sklearn_attnembed.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # formulas without a network
    "numpydoc",
    "myst_parser",  # the tables in benchmarks/ and CHANGES.md are Markdown
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "sg_execution_times.rst", "gallery/sg_execution_times.rst"]
smartquotes = False  # links from notebooks look for a text as it stands in the docstring
nitpicky = True  # a reference that leads nowhere is an error

autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "inherited-members": "Module, MultiheadAttention, tuple",  # but not of these
    "exclude-members": "set_fit_request, set_partial_fit_request, "  # scikit-learn's metadata routing
    # and fields of named tuples, which are under Parameters already
    "affinity, rows, columns, vocabulary, p0, counts, node, slice, nodes, start, width, moments, values, size",
}
autodoc_typehints = "none"  # docstrings say types, with shapes
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
copybutton_prompt_text = ">>> |[.][.][.] "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
myst_heading_anchors = 3

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "doc_module": ("sklearn_attnembed",),  # examples that use a class are shown on its page
    "backreferences_dir": "generated/backreferences",
    "reference_url": {"sklearn_attnembed": None},
}

# What the first page of the benchmarks shows of all of them.
runpy.run_path(str(Path(__file__).parent / "benchmarks" / "summary.py"), run_name="__main__")

html_theme = "pydata_sphinx_theme"
html_title = f"sklearn-attnembed {version}"
html_theme_options = {
    "header_links_before_dropdown": 5,
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc", "sg_download_links"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "logo": {"text": "sklearn-attnembed"},
}
html_sidebars = {  # pages without pages below them
    **{page: [] for page in ("index", "getting_started", "user_guide", "expressive", "mathematics", "changes")},
    **{page: [] for page in ("comparison", "migration", "faq")},
}
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sourcelink = False

# Other projects' documentation, by their own pattern of addresses: inventories would have to be fetched.
_ELSEWHERE = {
    "sklearn": "https://scikit-learn.org/stable/modules/generated/{}.html",
    "numpy": "https://numpy.org/doc/stable/reference/generated/{}.html",
    "scipy": "https://docs.scipy.org/doc/scipy/reference/generated/{}.html",
    "pandas": "https://pandas.pydata.org/docs/reference/api/{}.html",
    "joblib": "https://joblib.readthedocs.io/en/stable/generated/{}.html",
    "torch": "https://docs.pytorch.org/docs/stable/generated/{}.html",
}
# Labels in the docstrings of methods inherited from scikit-learn.
_LABELS = {
    "metadata_routing": "https://scikit-learn.org/stable/metadata_routing.html",
    "df_output_transform": "https://scikit-learn.org/stable/modules/df_output_transform.html",
    "sphx_glr_auto_examples_miscellaneous_plot_set_output.py": (
        "https://scikit-learn.org/stable/auto_examples/miscellaneous/plot_set_output.html"
    ),
}


def _link_elsewhere(app, env, node, contnode):
    """A link for a name, or a label, of another project."""
    target = node.get("reftarget", "")
    is_name = node.get("refdomain") == "py"
    address = _ELSEWHERE.get(target.split(".")[0]) if is_name else _LABELS.get(target)
    if address is None:
        return None
    return reference("", "", contnode, internal=False, refuri=address.format(target))


def setup(app):
    """Connect what extensions do not do."""
    app.connect("missing-reference", _link_elsewhere)
