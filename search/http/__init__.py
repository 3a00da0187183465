"""JSON over HTTP: a blueprint a noun. A view is parse, call, answer."""
