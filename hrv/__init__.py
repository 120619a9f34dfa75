"""The domain: layouts, vectors, vocabularies, tokens, controls and files (no ComfyUI)."""
