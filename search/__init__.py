"""Ask and answer: engine, HTTP, page, CLI, SDK."""
