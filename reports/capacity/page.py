"""The sections of the capacity model, for the page of a run."""

from __future__ import annotations

from reports.capacity import section, seed
from reports.capacity.layouts import read_layouts
from reports.capacity.own import chosen
from reports.dataset import Dataset
from reports.model import Section


def sections(data: Dataset) -> tuple[Section, Section]:
    """The model and how well it predicts; the document's tables, answered with it. Either may be empty."""
    found = chosen(data)
    return section.section(found), seed.section(data, found, read_layouts())
