"""From measurements to a sized machine: laws fitted to trials and footprints, and what they predict.

Rules:

* what a rate is bounded by decides what it says: a worker that could not keep up shows its cost, any other
  trial only that it costs no more;
* a prediction never travels alone: value, interval, basis (measured, interpolated, extrapolated), reason;
* predicting needs no numerical library, so that the command line answers at once; fitting does.

``samples`` (records to what is known) → ``fit`` (``fitting``, ``cost``, ``memory``, ``scaling``, ``holdout``)
→ ``model`` (the file) → ``predict`` → ``section``, ``seed`` (the report).
"""
