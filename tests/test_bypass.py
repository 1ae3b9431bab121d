"""What a bypassed node (Ctrl+B) lets through: the front end gives each output an input of its type."""

import pytest

from tools.templates.schema import OURS, read_snapshot

SCHEMA = read_snapshot(OURS)
OTHERWISE = {("ADiffSavePairs", "folder"): "measures"}
"""A socket comes before the widget of the output's name: Save Pairs is muted, not bypassed, to save nothing."""


def let_through(definition, place):
    """The input that an output gives: the one in its place if of its type, else the first of its type."""
    inputs = [*definition.sockets, *definition.widgets]
    _, wanted = definition.outputs[place]
    order = [*inputs[place : place + 1], *inputs]
    return next((one.name for one in order if one.type == wanted), None)


@pytest.mark.parametrize("node", SCHEMA)
def test_an_output_lets_the_input_of_its_name_through(node):
    definition = SCHEMA[node]
    inputs = {(one.name, one.type) for one in definition.inputs}
    for place, output in enumerate(definition.outputs):
        if output in inputs:
            assert let_through(definition, place) == OTHERWISE.get((node, output[0]), output[0])
