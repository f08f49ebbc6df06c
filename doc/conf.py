"""Sphinx configuration."""

import sklearn_attnembed

project = "sklearn-attnembed"
author = "The sklearn-attnembed developers"
copyright = f"2026, {author}"
version = release = sklearn_attnembed.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "exclude-members": "set_fit_request, set_partial_fit_request",  # scikit-learn's metadata routing
}
numpydoc_show_class_members = False
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Attention scores into embeddings, in linear time", "page_width": "1100px"}
html_copy_source = False
