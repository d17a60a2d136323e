"""The model of a report's own run, or the one that is shipped where the run has too little to fit one to."""

from __future__ import annotations

from dataclasses import dataclass

from reports.capacity.fit import fit
from reports.capacity.fitting import FitError
from reports.capacity.model import SHIPPED, CapacityModel, read_model
from reports.capacity.samples import Run
from reports.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Chosen:
    """``why_not`` says what the run lacks where the model is not its own."""

    model: CapacityModel
    own: bool
    why_not: str = ""


def chosen(data: Dataset) -> Chosen:
    try:
        return Chosen(fit([Run(data.run, data.trials, data.zero_losses, data.footprints)]), own=True)
    except FitError as error:
        return Chosen(read_model(SHIPPED), own=False, why_not=str(error))
