"""From a fresh clone to a running host: environment, host, server and API client (no ComfyUI and no torch in
here).
"""
