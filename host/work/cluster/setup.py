"""What workers have to know of this process so as to compute what it would."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfyui_version import __version__ as host_version

PACK_ROOT = Path(__file__).resolve().parents[3]

_CODE = ("host", "hrv", "hrv_kernels", "mini", "nodes")

# Options of the host's command line that results depend on; "fast" is a set of members of an enumeration.
_COMPUTING = re.compile(
    r"(force_)?(fp|bf)\d+(_.*)?|use_.*attention|.*upcast_attention|disable_xformers|cpu_vae|force_channels_last|"
    r"deterministic|supports_fp8_compute"
)


def setup() -> dict[str, Any]:
    """The host's version, folders and options, and the code of this pack, as plain data."""
    return {
        "host": str(Path(folder_paths.__file__).resolve().parent),
        "host_version": host_version,
        "pack": str(PACK_ROOT),
        # The host imports a pack under the path of its folder.
        "package": __name__.partition(".host.")[0].replace("\\", "/").rpartition("/")[2],
        "code": code_digest(),
        "gpu": not args.cpu,
        "fast": sorted(feature.value for feature in args.fast),
        "options": {name: value for name, value in vars(args).items() if _COMPUTING.fullmatch(name)},
        "folders": {kind: list(paths) for kind, (paths, _) in folder_paths.folder_names_and_paths.items()},
    }


def code_digest() -> str:
    """SHA-256 in hex of the pack's code, whatever its line ends."""
    digest = sha256()
    for path in sorted(path for folder in _CODE for path in (PACK_ROOT / folder).rglob("*.py")):
        digest.update(path.relative_to(PACK_ROOT).as_posix().encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()
