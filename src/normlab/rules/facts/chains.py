"""Facts of modules in a row: nothing is run."""

from normlab.surgery.flow import Link


def pairs(flow: list[Link]) -> dict[str, str]:
    """Path of a module to the path of the one that feeds it; both are called once, and the tensor between them goes
    nowhere else.
    """
    return {link.target: link.source for link in flow if link.shared is None}
