"""What a run leaves behind: records of one schema, one JSON object a line.

Rules:

* integers are counted, rates are derived: a record stores how many and how long, properties divide;
* a doubt travels with the number: ``warnings`` and ``validity`` sit beside the figure they are about;
* a *datagram* is one UDP packet on the wire; a *copy* is one datagram on one output; times are nanoseconds.
"""

from lab.results.changing import Change as Change
from lab.results.changing import ChangeKind as ChangeKind
from lab.results.changing import Course as Course
from lab.results.changing import OfferedPhase as OfferedPhase
from lab.results.changing import Resize as Resize
from lab.results.changing import ScalingSample as ScalingSample
from lab.results.files import AnyRecord as AnyRecord
from lab.results.files import ResultsError as ResultsError
from lab.results.files import dump_line as dump_line
from lab.results.files import first_problem as first_problem
from lab.results.files import parse_line as parse_line
from lab.results.files import read_results as read_results
from lab.results.parts import DRAIN_ALLOWED_NS as DRAIN_ALLOWED_NS
from lab.results.parts import DRAIN_ALLOWED_SHARE as DRAIN_ALLOWED_SHARE
from lab.results.parts import NONE as NONE
from lab.results.parts import NS_PER_S as NS_PER_S
from lab.results.parts import CapacityStep as CapacityStep
from lab.results.parts import Cpu as Cpu
from lab.results.parts import CpuUse as CpuUse
from lab.results.parts import Drop as Drop
from lab.results.parts import Frames as Frames
from lab.results.parts import Generated as Generated
from lab.results.parts import InputSample as InputSample
from lab.results.parts import Latency as Latency
from lab.results.parts import Ledger as Ledger
from lab.results.parts import Memory as Memory
from lab.results.parts import OutputSample as OutputSample
from lab.results.parts import Provenance as Provenance
from lab.results.parts import Receive as Receive
from lab.results.parts import Record as Record
from lab.results.parts import Role as Role
from lab.results.parts import Setting as Setting
from lab.results.parts import SoakSample as SoakSample
from lab.results.parts import Stage as Stage
from lab.results.parts import Streams as Streams
from lab.results.parts import Subject as Subject
from lab.results.parts import Validity as Validity
from lab.results.parts import WorkerSample as WorkerSample
from lab.results.parts import keeps_up as keeps_up
from lab.results.records import SCHEMA as SCHEMA
from lab.results.records import Capacity as Capacity
from lab.results.records import Check as Check
from lab.results.records import Comparison as Comparison
from lab.results.records import Delay as Delay
from lab.results.records import Footprint as Footprint
from lab.results.records import Judged as Judged
from lab.results.records import Judgement as Judgement
from lab.results.records import Pipelines as Pipelines
from lab.results.records import Purpose as Purpose
from lab.results.records import RunEnded as RunEnded
from lab.results.records import RunStarted as RunStarted
from lab.results.records import Soak as Soak
from lab.results.records import Trial as Trial
from lab.results.records import ZeroLoss as ZeroLoss
