"""How Sphinx makes the site of these pages: `make docs`. What is where says _toc.yml."""

from importlib.metadata import version as version_of

project = "pvops"
copyright = "the pvops authors"
version = release = version_of("pvops-core")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_external_toc"]
external_toc_path = "_toc.yml"
exclude_patterns = ["_build", "tools"]

# Files are Markdown that reads well without Sphinx too: links are relative paths, anchors are a forge's.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Names are told apart by the page they are on; a bare "type" in a signature may be several attributes.
suppress_warnings = ["ref.python"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"pvops {release}"
html_extra_path = ["site"]
html_copy_source = False

man_pages = [("reference/commands", "pvops", "paravirtualisation backends of Linux, on one machine", [project], 1)]
