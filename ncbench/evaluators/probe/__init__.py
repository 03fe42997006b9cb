"""Do predictions mean what their card says? Axes, colours, order of channels, frames, sequences, and places."""

from ncbench.evaluators.probe.decision import Rule
from ncbench.evaluators.probe.diagnosis import Diagnosis, Kind
from ncbench.evaluators.probe.probe import Probe, ProbeOptions, choose_frames, probe_frames

__all__ = ["Diagnosis", "Kind", "Probe", "ProbeOptions", "Rule", "choose_frames", "probe_frames"]
