"""All that keeps backends of plugin API 1 working beside those of API 2. It goes with API 3.

To end it: delete this folder and ``tests/api1``, then what names ``api1`` (``git grep api1``), and put ``OLDEST_API``
up. Nothing else of the project uses what is here.
"""
