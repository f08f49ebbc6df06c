"""Sphinx configuration."""

import sklearn_attnembed

project = "sklearn-attnembed"
author = "The sklearn-attnembed developers"
copyright = f"2026, {author}"
version = release = sklearn_attnembed.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "exclude-members": "set_fit_request, set_partial_fit_request",  # scikit-learn's metadata routing
}
numpydoc_show_class_members = False
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
}
exclude_patterns = ["_build", "sg_execution_times.rst", "gallery/sg_execution_times.rst"]
html_theme = "alabaster"
html_theme_options = {"description": "Attention scores into embeddings, in linear time", "page_width": "1100px"}
html_copy_source = False
