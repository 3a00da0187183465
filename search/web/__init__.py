"""The page: a blueprint, its templates, and the files it needs. No build step, no framework, no third party."""
