"""What one run measured, and the middle of several."""

import dataclasses
import statistics


@dataclasses.dataclass
class Run:
    """`messages` went all the way in `seconds`."""

    messages: int
    seconds: float
    # Microseconds of processor time a message, by what spent it.
    cpu: dict[str, float] = dataclasses.field(default_factory=dict)
    # Seconds, of parts of the run that are worth knowing.
    parts: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def rate(self):
        """Messages a second."""
        return self.messages / self.seconds


def middle(runs):
    """A run made of the medians of `runs`, each value on its own."""
    return Run(
        messages=runs[0].messages,
        seconds=statistics.median(run.seconds for run in runs),
        cpu=medians([run.cpu for run in runs]),
        parts=medians([run.parts for run in runs]),
    )


def medians(dictionaries):
    return {key: statistics.median(d[key] for d in dictionaries) for key in dictionaries[0]}


def interleaved(scenarios, repeats, say):
    """Runs all `scenarios` (name: function) once, then all of them again, so that a noisy minute hits each alike.

    Returns the middle run of each.
    """
    return {name: middle(runs) for name, runs in all_interleaved(scenarios, repeats, say).items()}


def all_interleaved(scenarios, repeats, say):
    """The same, but returns all runs of each."""
    runs = {name: [] for name in scenarios}
    for _ in range(repeats):
        for name, measure in scenarios.items():
            run = measure()
            say(f"{name}: {run.rate:,.0f}/s")
            runs[name].append(run)
    return runs


def spread(runs, who):
    """How far the runs' processor times a message of `who` are apart."""
    spent = [run.cpu[who] for run in runs]
    return max(spent) - min(spent)
