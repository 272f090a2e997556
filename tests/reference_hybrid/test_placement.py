"""A placement as a file, and the placements that are refused."""

import pytest

from gaugeblock.reference.hybrid.placement import Placement, PlacementError

PLACED = Placement("operator", {"embed": "host", "up": "device"}, 0.25, 4096, 1)


def test_a_file_gives_it_back(tmp_path):
    path = tmp_path / "placement.json"
    PLACED.save(path)
    assert Placement.load(path) == PLACED
    assert Placement.load(path).on_device == ("up",)


def test_a_place_that_does_not_exist_is_refused():
    with pytest.raises(PlacementError, match=r"'up' is placed on 'cuda'; places are: host, device"):
        Placement("operator", {"up": "cuda"}, 0.25, 4096, 1)


def test_every_operator_of_the_model_has_a_place():
    PLACED.refuse_other_operators(["embed", "up"])
    with pytest.raises(PlacementError, match="operators without a place: down"):
        PLACED.refuse_other_operators(["embed", "up", "down"])
    with pytest.raises(PlacementError, match="no such operators: up; the model has: embed"):
        PLACED.refuse_other_operators(["embed"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "schema_version None; this reads 1"),
        ('{"schema_version": 1, "strategy": "cpu"}', "without 'devices'"),
    ],
)
def test_a_file_that_holds_no_placement_is_refused(tmp_path, text, message):
    path = tmp_path / "placement.json"
    path.write_text(text)
    with pytest.raises(PlacementError, match=message):
        Placement.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PlacementError, match="cannot read the placement"):
        Placement.load(tmp_path / "none.json")
