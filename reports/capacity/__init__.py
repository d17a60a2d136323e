"""The capacity model: laws fitted to trials and footprints, and what they predict.

Rules:

* a worker that could not keep up shows its cost; any other trial shows only that it costs no more;
* a prediction never travels alone: value, interval, basis (measured, interpolated, extrapolated), reason;
* predicting needs no numerical library, so that the command line answers at once; fitting does.

``fit`` (``samples``, ``regression``, ``scaling``, ``holdout``, ``model``) → ``model`` (the file) →
``predict`` → ``rank``. "Group capacity" is something else, a test of RFC 3918: see
:mod:`reports.tables.rfc3918`.
"""
