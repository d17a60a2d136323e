"""The sections of the capacity model, for the page of a run."""

from __future__ import annotations

from reports.capacity.fit.model import fit
from reports.capacity.fit.regression import FitError
from reports.capacity.fit.samples import Run
from reports.capacity.layouts import read_layouts
from reports.dataset import Dataset
from reports.model import Section
from reports.page.capacity import document as seed
from reports.page.capacity import model as section


def sections(data: Dataset) -> tuple[Section, ...]:
    """The model and how well it predicts; the document's tables, answered with it.

    None where the run has too little to fit a model of its own: one of another run is not this run's result.
    """
    try:
        model = fit([Run(data.run, data.trials, data.zero_losses, data.footprints)])
    except FitError:
        return ()
    return section.section(model), seed.section(data, model, read_layouts())
