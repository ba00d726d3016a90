"""How tokens are continued: one protocol (`base`), one adapter an engine."""
