"""Reference integrity manifests in files: the tag itself, or NVIDIA's service's answer.

The service answers with `{"id", "rim": base64, …}`; a tag by itself does not say under
which id it was published, so that the name of its file is taken where it is one.
"""

from __future__ import annotations

import re
from pathlib import Path

from kbs.core.encode import parse_b64, parse_json_object, require_text
from kbs.core.errors import MalformedError
from kbs.evidence.model import StoredRim
from kbs.evidence.nvgpu.rim_xml import MAX_RIM_BYTES, is_rim, read_tag

_MAX_ID = 128
_ID = re.compile(r"NV_[A-Z]+_[A-Za-z0-9._-]+", re.ASCII)


def rim_in(data: bytes, what: str, name: str | None = None) -> StoredRim:
    """Return the manifest in a file; `name` is the file's, without its ending.

    Raises:
        MalformedError: it is none of the accepted profile.
    """
    rim_id = name if name is not None and _ID.fullmatch(name) else None
    document = data
    if data.lstrip()[:1] == b"{":
        members = parse_json_object(data, what, limit=4 * MAX_RIM_BYTES)
        rim_id = require_text(members.get("id"), f"{what} id", limit=_MAX_ID)
        document = parse_b64(members.get("rim"), f"{what} rim", limit=MAX_RIM_BYTES)
    if not is_rim(document):
        raise MalformedError(what, got="something else", expected="a RIM (SWID tag)")
    read_tag(document)
    return StoredRim(document, rim_id)


def name_in(path: Path) -> str:
    """Return a file's name without its ending, of which versions have none."""
    return re.sub(r"\.(?:xml|swidtag|json)\Z", "", path.name, flags=re.IGNORECASE)
