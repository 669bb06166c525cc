"""
The starter campaigns and templates: where they lie, and copying them into a workspace.

The wheel carries them as `outreach/starter/`; a checkout has them at its top level.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from outreach.errors import OutreachError

FOLDERS = ("campaigns", "message_templates")


def folder() -> Path:
    """
    The folder that holds `campaigns/` and `message_templates/` of the starter kit.

    Raises:
        OutreachError: neither the installed package nor a checkout around it has them.
    """
    package = Path(__file__).parent
    for candidate in (package / "starter", package.parent):
        if all((candidate / name).is_dir() for name in FOLDERS):
            return candidate
    raise OutreachError("the starter campaigns are missing from this installation: install outreach again")


def copy_into(workspace: Path) -> list[Path]:
    """Copy the starter kit into the workspace; files that are there stay as they are. Returns what was written."""
    kit, written = folder(), []
    for source in sorted(path for name in FOLDERS for path in (kit / name).rglob("*") if path.is_file()):
        target = workspace / source.relative_to(kit)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            written.append(target)
    return written
