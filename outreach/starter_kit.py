"""
The starter campaigns and templates: where they lie, and copying them into a workspace.

The wheel carries them as `outreach/starter/`; a checkout has them at its top level.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from outreach.errors import OutreachError

FOLDERS = ("campaigns", "message_templates")
ACTIVE = "active: yes\n"  # a line of every starter campaign
# What the campaigns give away, as outreach.yaml has it.
OFFERS = """\
offers:
  sorry10: {kind: percent, value: 10, expires: 30 days, per_customer: 1 per 180 days}
  stay15: {kind: percent, value: 15, expires: 14 days, per_customer: 1 per 365 days}
  back10: {kind: percent, value: 10, expires: 14 days, per_customer: 1 per 365 days}
  back15: {kind: percent, value: 15, expires: 14 days, per_customer: 1 per 365 days, replaces: back10}
  birthday10: {kind: percent, value: 10, expires: 30 days, per_customer: 1 per 360 days}
  vip_delivery: {kind: free_shipping, expires: 60 days, per_customer: 1 per 365 days}
  friend10: {kind: percent, value: 10, expires: 90 days, shareable: yes, uses: 5, per_customer: 1 per 365 days}
"""
_CHANNELS = re.compile(
    r"^(?P<before> +channel: )(?:\[(?P<several>[a-z, ]+)\]|(?P<one>[a-z]+))(?P<after>.*)$", re.MULTILINE
)
_STEP = re.compile(r"^  - (?=id:)", re.MULTILINE)


@dataclass(frozen=True)
class Said:
    """What the comment on top of a campaign file says, without its `#`."""

    name: str
    when: str  # when to use it
    change: str  # what to change first
    goal: str  # its goal and holdout


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


def copy_into(
    workspace: Path,
    *,
    campaigns: Collection[str] | None = None,
    active: Collection[str] | None = None,
    channels: Collection[str] | None = None,
) -> list[Path]:
    """
    Copy the starter kit into the workspace; files that are there stay as they are. Returns what was written.

    `campaigns` are those to copy, `active` those left switched on, `channels` those that the shop has: the steps are
    cut down to them, a step without any is left out, and so is a campaign without steps. None means all. The
    templates are copied whole, so that a campaign can be added later.
    """
    kit, written = folder(), []
    for source in sorted(path for name in FOLDERS for path in (kit / name).rglob("*.*") if path.is_file()):
        target = workspace / source.relative_to(kit)
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.parent.name == "campaigns" and source.suffix == ".yaml":
            if campaigns is not None and source.stem not in campaigns:
                continue
            text = _for_channels(source.read_text(encoding="utf-8"), channels)
            if not _STEP.search(text):
                continue
            is_active = active is None or source.stem in active
            target.write_text(text if is_active else text.replace(ACTIVE, "active: no\n"), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
        written.append(target)
    return written


def _for_channels(text: str, channels: Collection[str] | None) -> str:
    """The campaign file with only these channels in its steps, and without the steps that have none of them."""
    if channels is None:
        return text
    head, *steps = _STEP.split(text)
    kept = (_CHANNELS.sub(lambda match: _cut(match, channels), step) for step in steps)
    return head + "".join(f"  - {step}" for step in kept if _CHANNELS.search(step))


def _cut(match: re.Match[str], channels: Collection[str]) -> str:
    names = [name.strip() for name in (match["several"] or match["one"]).split(",")]
    beside = {"whatsapp": ("whatsapp", "messenger")}  # the same texts serve both
    left = [channel for name in names for channel in beside.get(name, (name,)) if channel in channels]
    if left in (names, []):
        return match[0] if left else ""
    written = left[0] if len(left) == 1 else f"[{', '.join(left)}]"
    return f"{match['before']}{written}{match['after']}"


def said() -> Iterator[Said]:
    """What each starter campaign says of itself, in the order of their names."""
    for path in sorted((folder() / "campaigns").glob("*.yaml")):
        yield _said(path.stem, path.read_text(encoding="utf-8"))


def _said(name: str, text: str) -> Said:
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    parts = dict.fromkeys(("When to use it", "What to change first", "Goal"), "")
    current = ""
    for line in lines:
        current = next((part for part in parts if line.startswith(f"{part}:")), current)
        if current:
            parts[current] = f"{parts[current]} {line.removeprefix(f'{current}:').strip()}".strip()
    return Said(name, *parts.values())
