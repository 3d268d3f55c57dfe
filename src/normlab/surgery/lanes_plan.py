"""From the data flow of a model to the stages that it runs in."""

import dataclasses
from collections import defaultdict

from torch import nn

from normlab.kernels.program import INPUT as CHAIN_INPUT
from normlab.surgery.hooks import hooked, watched
from normlab.surgery.lanes_layers import Kind, describe, kind, settings_reader
from normlab.surgery.lanes_run import Piece, Run
from normlab.surgery.lanes_stage import Single, Stage, Value
from normlab.surgery.lanes_trace import INPUT, Flow

_PLACES: dict[Kind, tuple[str, ...]] = {
    "head": ("head",),
    "activation": ("before", "activation"),
    "norm": ("norm",),
    "add": ("add",),
    "dropout": ("dropout",),
    "pool": ("pool",),
}
_ORDER = ("head", "before", "norm", "add", "activation", "dropout", "pool")


@dataclasses.dataclass(frozen=True)
class Step:
    """A stage or a single module, with the values that it takes and those that nobody needs behind it."""

    run: Stage | Single
    inputs: tuple[int, ...]
    members: tuple[int, ...]
    """Its operations by position; the last gives the value."""
    frees: tuple[int, ...] = ()

    @property
    def target(self) -> int:
        """The position of the value that it gives."""
        return self.members[-1]


class Plan:
    """The steps of a model, of as few stages as its layers, their settings and their hooks allow."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        watched = (*flow.containers, *(each.module for each in flow.operations if not each.is_function))
        readers = [settings_reader(type(module)) for module in watched]
        self._seen = [
            (module, type(module), read, read(module), _in_the_way(module))
            for module, read in zip(watched, readers, strict=True)
        ]
        self._kinds: list[Kind] = [_kind(each.module) for each in flow.operations]
        self._inputs, self._output = self._without_nothing()
        self._users: dict[int, list[int]] = defaultdict(list)
        for position, inputs in enumerate(self._inputs):
            for each in inputs if self._kinds[position] != "nothing" else ():
                self._users[each].append(position)
        self._users[self._output].append(len(self._kinds))
        self.hooked = next((type(each).__name__ for each in flow.containers if hooked(each)), None)
        """The class of a module whose hooks want it to be called, though it is traced through: no plan serves."""
        self.steps = self._steps()
        self._runs = self._find_runs()
        length, run, inputs = self._runs.get(0, (0, None, ()))
        self.whole = run if length == len(self.steps) and inputs == (INPUT,) else None
        """All steps as one run that takes the input once, where they are."""
        self.has_heads = any(isinstance(step.run, Stage) and step.run.head is not None for step in self.steps)

    def report(self) -> tuple[dict[str, str], dict[str, str]]:
        """First module of a stage to what is in it, for a plain input; path of a module that torch runs to why."""
        done: dict[str, str] = {}
        left: dict[str, str] = {}
        in_lanes: set[int] = set()
        for step in self.steps:
            operations = [self._flow.operations[each] for each in step.members]
            name, run = operations[0].name, step.run
            follows = not in_lanes.isdisjoint(step.inputs)
            if isinstance(run, Stage) and (follows or run.head is not None):
                layers = ", ".join(describe(each.module) for each in operations)
                done[name] = f"{done[name]}; {layers} in lanes" if name in done else f"{layers} in lanes"
            elif isinstance(run, Single) and run.takes_lanes and follows and not run.moves_numbers:
                done[name] = f"{type(operations[0].module).__name__} by torch, on lanes"
            elif not (isinstance(run, Single) and run.moves_numbers):
                placed = isinstance(run, Stage) or run.takes_lanes
                why = "as what feeds it" if placed else "it has no place in a stage"
                left |= {
                    each.name: f"torch runs {str(each.module).splitlines()[0]}, {why}"
                    for each in operations
                    if not each.is_function
                }
                continue
            elif not follows:
                continue
            in_lanes.add(step.target)
        return done, left

    def holds(self) -> bool:
        """Whether all that it rests on is as it was: asked in every forward, and so no more than it must."""
        for module, layer, read, settings, in_the_way in self._seen:
            if type(module) is not layer or read(module) != settings or _in_the_way(module) is not in_the_way:
                return False
        return True

    def __call__(self, x: Value) -> Value:
        """The model's result for its input."""
        values = {INPUT: x}
        at = 0
        while at < len(self.steps):
            length, run, inputs = self._runs.get(at, (0, None, ()))
            result = run(*(values[each] for each in inputs)) if run is not None else None
            if result is not None:
                steps = self.steps[at : at + length]
                values[steps[-1].target] = result
            else:
                steps = self.steps[at : at + 1]
                values[steps[0].target] = steps[0].run(*(values[each] for each in steps[0].inputs))
            for step in steps:
                for position in step.frees:
                    values.pop(position, None)
            at += len(steps)
        return values[self._output]

    def _find_runs(self) -> dict[int, tuple[int, Run, tuple[int, ...]]]:
        """Number of a first step to how many are one run, and the values that this takes."""
        runs: dict[int, tuple[int, Run, tuple[int, ...]]] = {}
        at = 0
        while at < len(self.steps):
            pieces, length, inputs = self._run_from(at)
            if len(pieces) > 1:
                runs[at] = (length, Run(pieces), inputs)
            at += max(length, 1)
        return runs

    def _run_from(self, first: int) -> tuple[list[Piece], int, tuple[int, ...]]:
        """The stages of the longest run from a step on, its number of steps, and the values that it takes."""
        steps = self.steps[first:]
        last_use = {value: at for at, step in enumerate(steps) for value in step.inputs} | {self._output: len(steps)}
        longest: tuple[list[Piece], int, tuple[int, ...]] = ([], 0, ())
        pieces: list[Piece] = []
        inputs = list(steps[0].inputs[:1])
        made: dict[int, int] = dict.fromkeys(inputs, CHAIN_INPUT)  # value to the piece that gives it
        flattened: dict[int, int] = {}
        for length, step in enumerate(steps, 1):
            if isinstance(step.run, Single):
                if not (step.run.flattens or step.run.concatenates) or not all(each in made for each in step.inputs):
                    break
                sources = tuple(made[each] for each in step.inputs)
                if step.run.flattens:
                    flattened[step.target] = sources[0]
                else:
                    made[step.target] = len(pieces)
                    pieces.append(Piece(None, sources))
            else:
                source, *residuals = step.inputs
                if (source not in made and source not in flattened) or not flattened.keys().isdisjoint(residuals):
                    break
                inner = outer = None
                for residual in residuals:
                    inner = made.get(residual)
                    if inner is None or inner == CHAIN_INPUT:
                        inner, outer = None, len(inputs) - 1
                        inputs.append(residual)
                sources = (flattened[source] if source in flattened else made[source],)
                made[step.target] = len(pieces)
                pieces.append(Piece(step.run, sources, source in flattened, inner, outer))
            within = {each.target for each in steps[: length - 1]}
            if step.target in made and all(last_use.get(each, -1) < length for each in within):
                longest = (list(pieces), length, tuple(inputs))
        return longest

    def _without_nothing(self) -> tuple[list[tuple[int, ...]], int]:
        """Inputs and the output as if what passes on its input were not there."""
        stands_for: dict[int, int] = {}
        inputs = []
        for position, operation in enumerate(self._flow.operations):
            inputs.append(tuple(stands_for.get(each, each) for each in operation.inputs))
            if self._kinds[position] == "nothing":
                stands_for[position] = inputs[-1][0]
        return inputs, stands_for.get(self._flow.output, self._flow.output)

    def _steps(self) -> list[Step]:
        taken: set[int] = set()
        steps = []
        for position in range(len(self._kinds)):
            if position not in taken and self._kinds[position] != "nothing":
                places = self._chain(position, taken)
                taken.update(places.values())
                steps.append(self._step(position, places))
        steps.sort(key=lambda step: step.target)
        last = {each: index for index, step in enumerate(steps) for each in (*step.inputs, step.target)}
        last.pop(self._output, None)
        return [
            dataclasses.replace(step, frees=tuple(each for each, at in last.items() if at == index))
            for index, step in enumerate(steps)
        ]

    def _chain(self, first: int, taken: set[int]) -> dict[str, int]:
        """Place in a stage to the position of the operation that takes it; nothing where it runs by itself."""
        places: dict[str, int] = {}
        position, rank = first, -1
        while position < len(self._kinds) and position not in taken:
            free = [place for place in _PLACES.get(self._kinds[position], ()) if _ORDER.index(place) > rank]
            if not free or self._disturbs(list(places.values()), position):
                break
            places[free[0]] = position
            rank = _ORDER.index(free[0])
            if len(self._users[position]) != 1:
                break
            position = self._users[position][0]
        if "before" in places and not places.keys() & {"norm", "add", "activation"}:
            places["activation"] = places.pop("before")
        return places

    def _disturbs(self, members: list[int], newcomer: int) -> bool:
        """Whether what lies between would come before the members then, and should not.

        A stage runs in the place of its last member. What draws random numbers keeps its order, and so does
        what changes the same buffers.
        """
        if not members:
            return False
        effects = set[object]().union(*map(self._effects, members))
        return any(effects & self._effects(each) for each in range(max(members) + 1, newcomer) if each not in members)

    def _effects(self, position: int) -> set[object]:
        module, its_kind = self._flow.operations[position].module, self._kinds[position]
        if its_kind in ("dropout", "single"):
            return {"draws", module}
        return {module} if its_kind == "norm" else set()

    def _step(self, first: int, places: dict[str, int]) -> Step:
        operations, inputs = self._flow.operations, self._inputs[first]
        if not places:
            module = operations[first].module
            return Step(Single(module, _in_the_way(module)), inputs, (first,))
        members = sorted(places.values(), key=[places.get(place) for place in _ORDER].index)
        if "add" in places and places["add"] != first:
            before = members[members.index(places["add"]) - 1]
            inputs += tuple(each for each in self._inputs[places["add"]] if each != before)
        modules = {place: operations[each].module for place, each in places.items()}
        return Step(Stage([operations[each].module for each in members], modules), inputs, tuple(members))


def _kind(module: nn.Module) -> Kind:
    return "single" if _in_the_way(module) else kind(module)


def _in_the_way(module: nn.Module) -> bool:
    return hooked(module) and (not isinstance(module, nn.Dropout) or watched(module))
